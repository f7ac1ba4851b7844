#!lua name=@LIBRARY@
-- The one library of the gateway in Redis (DESIGN.md section 3). Everything that must happen in one step happens here.
-- Placeholders in @ signs are filled by library.rs. There is no rollback in Lua: each function checks first, then writes,
-- and appends to the log before anything else that a reader could see.

local PREFIX = '@KEY_PREFIX@'
local CHANNEL_PREFIX = '@CHANNEL_PREFIX@'
local CLOCK = PREFIX .. 'clock'
local LIVE = PREFIX .. 'live:'
local RECORDER = PREFIX .. 'recorder'

-- The run_id of this server process, once a write function has asked for it. (A flag would not do: a server that becomes
-- a replica and primary again keeps its process, while another one has written the clock.)
local own_run_id

-- The ms of the last id that this process gave out. A wipe takes the clock, but not this: it may come in the same
-- millisecond as an event, or while the clock runs ahead of the time.
local given_ms = 0

local function refuse(code, text)
  return redis.error_reply('SSE ' .. code .. ': ' .. text)
end

-- ids ------------------------------------------------------------------------------------------------------------

local function parse_id(text)
  local ms, seq = string.match(text or '', '^(%d+)-(%d+)$')
  if not ms then return 0, 0 end
  return tonumber(ms), tonumber(seq)
end

local function after(a_ms, a_seq, b_ms, b_seq)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end

local function show_id(ms, seq)
  return string.format('%.0f-%.0f', ms, seq)
end

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- settings -------------------------------------------------------------------------------------------------------

local function settings()
  local s = redis.call('HMGET', PREFIX .. 'settings', 'max_len', 'retention_ms', 'dedupe_window_ms', 'max_event_bytes')
  return {
    max_len = tonumber(s[1] or 1000),
    retention_ms = tonumber(s[2] or 86400000),
    dedupe_window_ms = tonumber(s[3] or 300000),
    max_event_bytes = tonumber(s[4] or 65536),
  }
end

-- the clock ------------------------------------------------------------------------------------------------------

-- Every id that is given out goes through here: it is the clock's last one.
local function give(ms, seq)
  local id = show_id(ms, seq)
  redis.call('HSET', CLOCK, 'last', id)
  given_ms = ms
  return id
end

-- Writes a seam: nothing before it can be proved any more (reset), or bare publishes may be missing (unrecorded).
local function seam(ms, reason)
  local id = give(ms, 0)
  if reason == 'reset' then
    redis.call('HSET', CLOCK, 'epoch', id)
  else
    redis.call('HSET', CLOCK, 'unrecorded', id)
  end
  redis.call('XADD', PREFIX .. 'seams', 'MAXLEN', '~', 1000, id, 'reason', reason)
  redis.call('PUBLISH', LIVE .. 'seam', id .. ' ' .. reason)
end

local function run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
end

-- The clock's last id. A missing clock (wiped Redis) or one that another server process has written (restart from a file,
-- fail-over to a replica) starts a new epoch, past everything that `seen`, the clock and this process know of, and past the
-- millisecond that it is: its ids may have been given out. So the clock runs ahead of the time by about that much.
local function clock(seen)
  local c = redis.call('HMGET', CLOCK, 'last', 'run_id')
  local ms, seq = parse_id(c[1])
  local seen_ms, seen_seq = parse_id(seen)
  own_run_id = own_run_id or run_id()
  local broken = not c[1] or c[2] ~= own_run_id or after(seen_ms, seen_seq, ms, seq)
  if c[2] ~= own_run_id then redis.call('HSET', CLOCK, 'run_id', own_run_id) end
  if broken then
    ms, seq = math.max(now_ms(), ms, seen_ms, given_ms) + 1, 0
    seam(ms, 'reset')
  end
  return ms, seq
end

-- The next id: the time, but always after the last one.
local function next_id(seen)
  local ms, seq = clock(seen)
  local now = now_ms()
  if now > ms then return now, 0 end
  return ms, seq + 1
end

-- sse_configure 0 <max_len> <retention_ms> <dedupe_window_ms> <max_event_bytes>: writes what settings() reads. Where the retention
-- grows, the clock remembers for how long the events up to now are kept: a longer retention brings none of them back.
local function configure(_, args)
  local before, retention_ms = settings().retention_ms, tonumber(args[2])
  if before < retention_ms then
    local c = redis.call('HMGET', CLOCK, 'last', 'raised_ms', 'shorter_ms')
    local last_ms = parse_id(c[1])
    -- Ids may run ahead of the time.
    local raised_ms = math.max(now_ms(), last_ms)
    -- A raise before this one counts as long as it has more to say.
    if c[2] and raised_ms <= tonumber(c[2]) + before then before = math.min(before, tonumber(c[3])) end
    redis.call('HSET', CLOCK, 'raised_ms', string.format('%.0f', raised_ms), 'shorter_ms', string.format('%.0f', before))
  end
  redis.call('HSET', PREFIX .. 'settings', 'max_len', args[1], 'retention_ms', args[2], 'dedupe_window_ms', args[3],
    'max_event_bytes', args[4])
  return 1
end

-- events ---------------------------------------------------------------------------------------------------------

local function is_name(text)
  return #text >= 1 and #text <= 256 and not string.find(text, '[^\33-\126]') and not string.find(text, '[,%*%?%[%]\\]')
end

-- The channel without prefix, and whether it is a broadcast's topic.
local function parse_channel(name)
  if CHANNEL_PREFIX ~= '' and string.sub(name, 1, #CHANNEL_PREFIX) == CHANNEL_PREFIX then
    name = string.sub(name, #CHANNEL_PREFIX + 1)
  end
  local user = string.match(name, '^user:(.*):events$')
  if user and is_name(user) then return name, nil end
  local topic = string.match(name, '^broadcast:(.*)$')
  if topic and is_name(topic) then return name, topic end
  return nil
end

-- RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF.
local function is_utf8(s)
  local at = string.find(s, '[\128-\255]')
  while at do
    local b = string.byte(s, at)
    local to
    if b >= 0xC2 and b <= 0xDF then
      to = string.find(s, '^[\128-\191]', at + 1) and at + 1
    elseif b >= 0xE0 and b <= 0xEF then
      local second = (b == 0xE0 and '^[\160-\191][\128-\191]') or (b == 0xED and '^[\128-\159][\128-\191]')
        or '^[\128-\191][\128-\191]'
      to = string.find(s, second, at + 1) and at + 2
    elseif b >= 0xF0 and b <= 0xF4 then
      local second = (b == 0xF0 and '^[\144-\191][\128-\191][\128-\191]') or (b == 0xF4 and '^[\128-\143][\128-\191][\128-\191]')
        or '^[\128-\191][\128-\191][\128-\191]'
      to = string.find(s, second, at + 1) and at + 3
    end
    if not to then return false end
    at = string.find(s, '[\128-\255]', to + 1)
  end
  return true
end

-- Why an event is refused: code and text; the same rules as in envelope.rs.
local function fault(channel, kind, payload, key, retry, max_event_bytes)
  if not parse_channel(channel) then
    return 'bad-channel', 'the channel must be user:<id>:events or broadcast:<topic>, with 1 to 256 bytes of printable ASCII'
      .. ' without space, comma and * ? [ ] \\'
  elseif #kind < 1 or #kind > 128 or string.find(kind, '%c') or not is_utf8(kind)
    or string.find(kind, '\194[\128-\159]') then
    return 'bad-type', 'the type must be a string of 1 to 128 bytes without control characters'
  elseif string.sub(kind, 1, 4) == 'sse.' then
    return 'reserved-type', 'types that begin with sse. are the gateway\'s own; choose another name'
  elseif key and (#key < 1 or #key > 256) then
    return 'bad-key', 'the key must have 1 to 256 bytes'
  elseif retry and (not string.find(retry, '^%d+$') or tonumber(retry) > 86400000) then
    return 'bad-retry', 'RETRY must be a whole number of ms up to 86400000'
  elseif #payload > max_event_bytes then
    return 'too-large', 'the payload has ' .. #payload .. ' bytes, history.max_event_bytes is ' .. max_event_bytes
  elseif not is_utf8(payload) then
    return 'not-utf8', 'the payload is not UTF-8'
  end
end

-- The last id that a log has had; 0-0 if there is no such log.
local function last_of(log)
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if last[1] then return last[1][1] end
  if redis.call('EXISTS', log) == 0 then return '0-0' end
  -- An empty log that was trimmed by hand still knows it.
  local info = redis.call('XINFO', 'STREAM', log)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
  return '0-0'
end

-- The heart: one atomic append. Log first, then the clock, then the live message. Returns the id.
local function append(name, kind, payload, key, retry, s)
  local channel, topic = parse_channel(name)
  local dedupe = key and (PREFIX .. 'dedupe:' .. channel .. ' ' .. key)
  if dedupe then
    local before = redis.call('GET', dedupe)
    if before then return before end
  end
  local log = PREFIX .. 'log:' .. channel
  local ms, seq = next_id()
  local predecessor = last_of(log)
  local p_ms, p_seq = parse_id(predecessor)
  if not after(ms, seq, p_ms, p_seq) then ms, seq = p_ms, p_seq + 1 end
  redis.call('XADD', log, 'MAXLEN', '~', s.max_len, show_id(ms, seq), 'p', predecessor, 'r', retry or '-', 't', kind,
    'd', payload)
  local id = give(ms, seq)
  -- By the id and not by the time, which may have been put back: a cursor must not outlive what it points to unnoticed.
  redis.call('PEXPIREAT', log, string.format('%.0f', ms + s.retention_ms))
  if topic then
    redis.call('ZADD', PREFIX .. 'topics', ms, topic)
    redis.call('ZREMRANGEBYSCORE', PREFIX .. 'topics', '-inf', '(' .. string.format('%.0f', ms - s.retention_ms))
  end
  if dedupe then redis.call('SET', dedupe, id, 'PX', s.dedupe_window_ms) end
  redis.call('PUBLISH', LIVE .. channel, id .. ' ' .. predecessor .. ' ' .. (retry or '-') .. ' ' .. kind .. '\n' .. payload)
  return id
end

-- [KEY <key>] [RETRY <ms>] from the argument `from` on.
local function options(args, from)
  local key, retry
  local i = from
  while args[i] do
    local name = string.upper(args[i])
    if not args[i + 1] then return nil, nil, 'an option without a value' end
    if name == 'KEY' then key = args[i + 1]
    elseif name == 'RETRY' then retry = args[i + 1]
    else return nil, nil, 'unknown option ' .. string.sub(args[i], 1, 32) end
    i = i + 2
  end
  return key, retry
end

-- FCALL sse_publish 1 <channel> <type> <payload> [KEY <key>] [RETRY <ms>]
local function publish(keys, args)
  if #keys ~= 1 or #args < 2 then
    return refuse('usage', 'FCALL @F@_publish 1 <channel> <type> <payload> [KEY <key>] [RETRY <ms>]')
  end
  local key, retry, wrong = options(args, 3)
  if wrong then return refuse('usage', wrong .. '; use KEY <key> and RETRY <ms>') end
  local s = settings()
  local code, text = fault(keys[1], args[1], args[2], key, retry, s.max_event_bytes)
  if code then return refuse(code, text) end
  return append(keys[1], args[1], args[2], key, retry, s)
end

-- bare publishes ----------------------------------------------------------------------------------------------------

local function reject(channel, reason, message)
  redis.call('XADD', PREFIX .. 'rejected', 'MAXLEN', '~', 1000, '*',
    'channel', string.sub(channel, 1, 512), 'reason', reason, 'message', string.sub(message, 1, 4096))
end

-- sse_record 1 <channel> <token> <marker> <n> EVENT <type> <payload> [KEY ..] [RETRY ..] | REJECT <reason> <message>
--   | MARK <marker before> <n before>
-- Accepts only the next number under the token that holds the lease, and counts it in the same step. Answers `recorded`,
-- `duplicate`, `rejected <reason>`, `done` (a number that was counted before), `fenced` or `hole`.
local function record(keys, args)
  local token, marker, n = args[1], args[2], tonumber(args[3])
  local r = redis.call('HMGET', RECORDER, 'token', 'marker', 'n')
  if r[1] ~= token then return 'fenced' end
  if args[4] == 'MARK' then
    if r[2] == marker then return 'done' end
    -- Only behind the message before it: one that was refused for now must not be skipped.
    if r[2] ~= args[5] or r[3] ~= args[6] then return 'hole' end
    redis.call('HSET', RECORDER, 'marker', marker, 'n', n)
    return 'done'
  end
  if r[2] ~= marker then return 'hole' end
  if n <= tonumber(r[3]) then return 'done' end
  if n ~= tonumber(r[3]) + 1 then return 'hole' end
  local answer
  if args[4] == 'REJECT' then
    reject(keys[1], args[5], args[6])
    answer = 'rejected ' .. args[5]
  else
    local key, retry = options(args, 7)
    local s = settings()
    local code = fault(keys[1], args[5], args[6], key, retry, s.max_event_bytes)
    if code then
      reject(keys[1], code, args[6])
      answer = 'rejected ' .. code
    else
      append(keys[1], args[5], args[6], key, retry, s)
      answer = 'recorded'
    end
  end
  redis.call('HSET', RECORDER, 'n', n)
  return answer
end

-- sse_lease 0 <role> <instance> <ttl_ms> [RELEASE]. Takes, renews or gives back the lease of a role (recorder, standby).
-- Answers {held, token, marker, n}: token and position are those of the recorder.
local function lease(_, args)
  local role, instance, ttl_ms = args[1], args[2], args[3]
  local key = PREFIX .. 'lease:' .. role
  local holder = redis.call('GET', key)
  if args[4] == 'RELEASE' then
    if holder == instance then
      redis.call('DEL', key)
      redis.call('PUBLISH', LIVE .. 'control', 'vacant ' .. role)
    end
    return { 0 }
  end
  if holder and holder ~= instance then return { 0 } end
  if role == 'recorder' and not holder then
    -- A vacant record is the standby's: it alone can prove what is recorded. An instance between the two would break the record.
    local standby = redis.call('GET', PREFIX .. 'lease:standby')
    if standby and standby ~= instance then return { 0 } end
  end
  redis.call('SET', key, instance, 'PX', ttl_ms)
  if role ~= 'recorder' then return { 1 } end
  local r = redis.call('HMGET', RECORDER, 'token', 'marker', 'n', 'holder')
  if r[4] ~= instance then
    -- Another holder, or none that is known: whatever the last one still sends is fenced off.
    r[1] = give(next_id())
    redis.call('HSET', RECORDER, 'token', r[1], 'holder', instance)
  end
  return { 1, r[1], r[2] or '', r[3] or '-1' }
end

-- sse_mark 0 <token> <marker> <known 0|1>: starts a numbering. If there is one here that it does not follow, or if the caller
-- knows that there was one which it cannot prove to follow, bare publishes may be missing and a seam says so.
local function mark(_, args)
  local r = redis.call('HMGET', RECORDER, 'token', 'marker')
  if r[1] ~= args[1] then return 'fenced' end
  if r[2] or args[3] == '1' then
    local ms = clock()
    seam(math.max(now_ms(), ms + 1), 'unrecorded')
  end
  redis.call('HSET', RECORDER, 'marker', args[2], 'n', 0)
  return 'marked'
end

-- ticks -------------------------------------------------------------------------------------------------------------

-- sse_tick 0 <min_interval_ms> <seen>: moves the clock and publishes it, unless that was done less than min_interval_ms ago.
-- `seen` is the highest id that the instance knows: a clock behind it was put back.
local function tick(_, args)
  clock(args[2])
  local now = now_ms()
  local before = tonumber(redis.call('HGET', CLOCK, 'ticked_ms') or 0)
  if before <= now and now - before < tonumber(args[1]) then return 0 end
  local id = give(next_id())
  redis.call('HSET', CLOCK, 'ticked_ms', string.format('%.0f', now))
  local c = redis.call('HMGET', CLOCK, 'epoch', 'unrecorded')
  local r = redis.call('HMGET', RECORDER, 'marker', 'n')
  redis.call('PUBLISH', LIVE .. 'tick',
    id .. ' ' .. (c[1] or '0-0') .. ' ' .. (c[2] or '0-0') .. ' ' .. (r[1] or '-') .. ' ' .. (r[2] or '0'))
  return 1
end

-- sessions ----------------------------------------------------------------------------------------------------------

local function revoked_ms(user)
  return tonumber(redis.call('GET', PREFIX .. 'revoked:' .. user) or 0)
end

local function store_session(key, user, connection, first, opened_ms, until_ms, good_ms, turn, ttl_ms, proof)
  redis.call('HSET', key, 'user', user, 'connection', connection, 'first', first, 'opened_ms', opened_ms,
    'until_ms', until_ms, 'good_ms', string.format('%.0f', good_ms), 'turn', turn, 'proof', proof)
  redis.call('PEXPIRE', key, ttl_ms)
end

-- sse_open 1 <digest> <connection> <user> <expired 0|1> <one_use 0|1> <ttl_ms> <until_ms> <issued_ms> <cursor or empty> <left_ms> <proof shown> <new proof>
-- Opens or resumes the session of a ticket; for left_ms the ticket could open a session, so its session is not forgotten before.
-- A session that was opened with a proof (the digest of a cookie) is resumed only with it; an empty one asks for none.
-- Answers {outcome, first, opened_ms, until_ms, last id of the clock, turn}; the outcome is opened, resumed, expired, used, over, stranger or
-- revoked. Each connection of a session has a higher turn than the one before, also across a wipe: only a higher turn takes over.
local function open(keys, args)
  local key = PREFIX .. 'session:' .. keys[1]
  local connection, user = args[1], args[2]
  local now = now_ms()
  local last = show_id(clock())
  local s = redis.call('HMGET', key, 'connection', 'first', 'opened_ms', 'until_ms', 'turn', 'good_ms', 'times', 'taken_ms',
    'proof')
  if s[2] then
    if args[4] == '1' then return { 'used' } end
    if now >= tonumber(s[4]) then return { 'over' } end
    if tonumber(s[3]) <= revoked_ms(user) then return { 'revoked' } end
    if s[9] and s[9] ~= '' and s[9] ~= args[10] then return { 'stranger' } end
    local turn = string.format('%.0f', math.max(tonumber(s[5]) + 1, now))
    if s[1] ~= '' then
      -- How often of late: two tabs with one ticket are told to wait longer each time.
      local times = now - tonumber(s[8] or 0) < 600000 and tonumber(s[7] or 0) + 1 or 1
      redis.call('HSET', key, 'times', times, 'taken_ms', string.format('%.0f', now))
      redis.call('PUBLISH', LIVE .. 'control', 'taken-over ' .. keys[1] .. ' ' .. turn .. ' ' .. times)
    end
    redis.call('HSET', key, 'connection', connection, 'turn', turn)
    redis.call('PEXPIRE', key, math.max(tonumber(args[5]), tonumber(s[6] or 0) - now))
    return { 'resumed', s[2], s[3], s[4], last, turn, s[9] or '' }
  end
  if args[3] == '1' then return { 'expired' } end
  if tonumber(args[6]) <= now then return { 'over' } end
  if tonumber(args[7]) < revoked_ms(user) then return { 'revoked' } end
  -- A cursor ahead of the clock must not keep the session from resuming ever after.
  local first = last
  if args[8] ~= '' then
    local c_ms, c_seq = parse_id(args[8])
    local l_ms, l_seq = parse_id(last)
    if after(l_ms, l_seq, c_ms, c_seq) then first = args[8] end
  end
  local opened_ms = string.format('%.0f', now)
  local left_ms = tonumber(args[9])
  store_session(key, user, connection, first, opened_ms, args[6], now + left_ms, opened_ms,
    math.max(tonumber(args[5]), left_ms), args[11] or '')
  return { 'opened', first, opened_ms, args[6], last, opened_ms, args[11] or '' }
end

-- sse_renew <n> <digest>.. then for each: <connection> <user> <first> <opened_ms> <until_ms> <ttl_ms> <closing 0|1> <turn> <proof>
-- Keeps sessions alive from the holder's memory, or gives them back. Answers for each ok, taken-over, revoked or gone.
local function renew(keys, args)
  local answers = {}
  -- Gateways of version 1 give no proof.
  local width = #args / #keys
  for i, digest in ipairs(keys) do
    local a = (i - 1) * width
    local connection, user, first, opened_ms, until_ms = args[a + 1], args[a + 2], args[a + 3], args[a + 4], args[a + 5]
    local ttl_ms, closing = args[a + 6], args[a + 7] == '1'
    local key = PREFIX .. 'session:' .. digest
    local s = redis.call('HMGET', key, 'connection', 'good_ms', 'turn')
    local holder, turn = s[1], tonumber(args[a + 8])
    if tonumber(opened_ms) <= revoked_ms(user) then
      -- The session stays as it is until it expires: its ticket must not open another one.
      answers[i] = 'revoked'
    elseif holder and tonumber(s[3]) > turn then
      answers[i] = holder == '' and 'ok' or 'taken-over'
    else
      -- A fault of Redis ends no session: what it forgot, or knows an older turn of, is written again.
      if not holder or tonumber(s[3]) < turn then
        store_session(key, user, connection, first, opened_ms, until_ms, tonumber(s[2] or 0), args[a + 8], ttl_ms,
          width > 8 and args[a + 9] or '')
      end
      if closing then redis.call('HSET', key, 'connection', '') end
      redis.call('PEXPIRE', key, math.max(tonumber(ttl_ms), tonumber(s[2] or 0) - now_ms()))
      answers[i] = 'ok'
    end
  end
  return answers
end

-- sse_revoke 1 <user> <ttl_ms>: ends the user's sessions on all instances.
local function revoke(keys, args)
  local now = string.format('%.0f', now_ms())
  redis.call('SET', PREFIX .. 'revoked:' .. keys[1], now, 'PX', args[1])
  return redis.call('PUBLISH', LIVE .. 'control', 'revoke ' .. keys[1] .. ' ' .. now)
end

-- allow-oom: a full Redis refuses events, which the publisher is told, but must not end streams and sessions.
redis.register_function('@F@_publish', publish)
redis.register_function('@F@_record', record)
redis.register_function('@F@_configure', configure)
redis.register_function { function_name = '@F@_lease', callback = lease, flags = { 'allow-oom' } }
redis.register_function { function_name = '@F@_mark', callback = mark, flags = { 'allow-oom' } }
redis.register_function { function_name = '@F@_tick', callback = tick, flags = { 'allow-oom' } }
redis.register_function { function_name = '@F@_open', callback = open, flags = { 'allow-oom' } }
redis.register_function { function_name = '@F@_renew', callback = renew, flags = { 'allow-oom' } }
redis.register_function { function_name = '@F@_revoke', callback = revoke, flags = { 'allow-oom' } }
@ALIAS@
