#!lua name=@LIBRARY@
-- The one library of the gateway in Redis (ARCHITECTURE.md#function-library): this file, then
-- library_recorder.lua and library_sessions.lua. Everything that must happen in one step happens
-- here. Placeholders in @ signs are filled by library.rs. There is no
-- rollback in Lua: each function checks first, then writes, and appends to the log before anything
-- else that a reader could see.

local PREFIX = '@KEY_PREFIX@'
local CHANNEL_PREFIX = '@CHANNEL_PREFIX@'
local CLOCK = PREFIX .. 'clock'
local LIVE = PREFIX .. 'live:'
local RECORDER = PREFIX .. 'recorder'

-- The run_id of this server process, once a write function has asked for it. (A flag would not do:
-- a server that becomes a replica and primary again keeps its process, while another one has
-- written the clock.)
local own_run_id

-- The ms of the last id that this process gave out. A wipe takes the clock, but not this: it may
-- come in the same millisecond as an event, or while the clock runs ahead of the time.
local given_ms = 0

-- How far an id may be ahead of the time, in ms: 7 days. No clock that this library keeps runs
-- further ahead, so a later id is forged, or the time of this server was put back by days.
local AHEAD_MS = 604800000
-- The clock itself may be a little further ahead: a reset puts it past an id that is just within
-- AHEAD_MS.
local CLOCK_AHEAD_MS = AHEAD_MS + 1000
-- Numbers are doubles here: above this, adding 1 may change nothing.
local MAX_SEQ = 9007199254740991

local function refuse(code, text)
  return redis.error_reply('SSE ' .. code .. ': ' .. text)
end

-- A reply of several values, given as a list of names and values. Gateways up to version 3 do not
-- end their call with NAMED, and get the values alone.
local function reply(named, fields)
  if named == 'NAMED' then return fields end
  local values = {}
  for i = 2, #fields, 2 do values[i / 2] = fields[i] end
  return values
end

-- keys --------------------------------------------------------------------------------------------

local function wrong_type(key)
  local name = '"' .. string.gsub(key, '[^ -~]', '?') .. '"'
  return 'the key ' .. name .. ' holds a value of a type that the gateway never writes; run DEL '
    .. name
end

-- redis.call for a key that may hold something foreign: then nil, and a text that names the key and
-- the fix.
local function attempt(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if string.find(answer.err, 'WRONGTYPE', 1, true) then return nil, wrong_type(key) end
  error(answer)
end

-- The same, for keys that the function requires: it ends with the error `SSE wrong-type`.
local function call(command, key, ...)
  local answer, wrong = attempt(command, key, ...)
  if wrong then error(refuse('wrong-type', wrong)) end
  return answer
end

-- ids ---------------------------------------------------------------------------------------------

-- Milliseconds and sequence; nil: it is malformed.
local function parse_id(text)
  local ms, seq = string.match(text or '', '^(%d+)-(%d+)$')
  if not ms then return nil end
  return tonumber(ms), tonumber(seq)
end

-- The same for an id that somebody else may have written; nil, too, if it lies past `limit_ms`.
local function foreign_id(text, limit_ms)
  local ms, seq = parse_id(text)
  if not ms or ms > limit_ms or seq > MAX_SEQ then return nil end
  return ms, seq
end

-- The id after that one.
local function following(ms, seq)
  if seq >= MAX_SEQ then return ms + 1, 0 end
  return ms, seq + 1
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

-- settings ----------------------------------------------------------------------------------------

local function number(text, default)
  return tonumber(text or '') or default
end

local function settings()
  local s = call('HMGET', PREFIX .. 'settings', 'max_len', 'retention_ms', 'dedupe_window_ms',
    'max_event_bytes')
  return {
    max_len = number(s[1], 1000),
    retention_ms = number(s[2], 86400000),
    dedupe_window_ms = number(s[3], 300000),
    max_event_bytes = number(s[4], 65536),
  }
end

-- the clock ---------------------------------------------------------------------------------------

-- Every id that is given out goes through here: it is the clock's last one.
local function give(ms, seq)
  local id = show_id(ms, seq)
  redis.call('HSET', CLOCK, 'last', id)
  given_ms = ms
  return id
end

-- Writes a seam: nothing before it can be proved any more (reset), or plain publishes may be
-- missing (unrecorded).
local function seam(ms, reason)
  local id = give(ms, 0)
  if reason == 'reset' then
    redis.call('HSET', CLOCK, 'epoch', id)
  else
    redis.call('HSET', CLOCK, 'unrecorded', id)
  end
  -- For operators only: whatever stands there instead must not stop the clock.
  redis.pcall('XADD', PREFIX .. 'seams', 'MAXLEN', '~', 1000, id, 'reason', reason)
  redis.call('PUBLISH', LIVE .. 'seam', id .. ' ' .. reason)
end

local function run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
end

-- The clock's last id. A missing clock (wiped Redis), one that another server process has written
-- (restart from a file, fail-over to a replica), one that was put back and one that is impossibly
-- far ahead (forged) start a new epoch. It begins past everything that `seen`, the clock and this
-- process know of and that is possible, and past the millisecond that it is: its ids may have been
-- given out. So the clock runs ahead of the time by about that much.
local function clock(now, seen)
  local c = call('HMGET', CLOCK, 'last', 'run_id')
  local ms, seq = foreign_id(c[1], now + CLOCK_AHEAD_MS)
  local seen_ms, seen_seq = foreign_id(seen, now + AHEAD_MS)
  if given_ms > now + CLOCK_AHEAD_MS then given_ms = 0 end
  own_run_id = own_run_id or run_id()
  local broken = not ms or c[2] ~= own_run_id or ms < given_ms
    or (seen_ms and after(seen_ms, seen_seq, ms, seq))
  if c[2] ~= own_run_id then redis.call('HSET', CLOCK, 'run_id', own_run_id) end
  if broken then
    ms, seq = math.max(now, ms or 0, seen_ms or 0, given_ms) + 1, 0
    seam(ms, 'reset')
  end
  return ms, seq
end

-- The next id: the time, but always after the last one.
local function next_id(now)
  local ms, seq = clock(now)
  if now > ms then return now, 0 end
  return following(ms, seq)
end

-- sse_configure 0 <max_len> <retention_ms> <dedupe_window_ms> <max_event_bytes>: writes what
-- settings() reads. Where the retention grows, the clock remembers for how long the events up to
-- now are kept: a longer retention brings none of them back.
local function configure(_, args)
  local before, retention_ms = settings().retention_ms, tonumber(args[2])
  if before < retention_ms then
    local c = call('HMGET', CLOCK, 'last', 'raised_ms', 'shorter_ms')
    local now = now_ms()
    -- Ids may run ahead of the time.
    local raised_ms = math.max(now, foreign_id(c[1], now + CLOCK_AHEAD_MS) or 0)
    -- A raise before this one counts as long as it has more to say.
    local earlier_ms, shorter_ms = number(c[2]), number(c[3])
    if earlier_ms and shorter_ms and raised_ms <= earlier_ms + before then
      before = math.min(before, shorter_ms)
    end
    redis.call('HSET', CLOCK, 'raised_ms', string.format('%.0f', raised_ms),
      'shorter_ms', string.format('%.0f', before))
  end
  redis.call('HSET', PREFIX .. 'settings', 'max_len', args[1], 'retention_ms', args[2],
    'dedupe_window_ms', args[3], 'max_event_bytes', args[4])
  return 1
end

-- events ------------------------------------------------------------------------------------------

local function is_name(text)
  return #text >= 1 and #text <= 256 and not string.find(text, '[^\33-\126]')
    and not string.find(text, '[,%*%?%[%]\\]')
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
      local second = (b == 0xE0 and '^[\160-\191][\128-\191]')
        or (b == 0xED and '^[\128-\159][\128-\191]')
        or '^[\128-\191][\128-\191]'
      to = string.find(s, second, at + 1) and at + 2
    elseif b >= 0xF0 and b <= 0xF4 then
      local second = (b == 0xF0 and '^[\144-\191][\128-\191][\128-\191]')
        or (b == 0xF4 and '^[\128-\143][\128-\191][\128-\191]')
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
    return 'bad-channel',
      'the channel must be user:<id>:events or broadcast:<topic>,'
      .. ' with 1 to 256 bytes of printable ASCII'
      .. ' without space, comma and * ? [ ] \\'
  elseif #kind < 1 or #kind > 128 or string.find(kind, '%c') or not is_utf8(kind)
    or string.find(kind, '\194[\128-\159]') then
    return 'bad-type', 'the type must be a string of 1 to 128 bytes without control characters'
  elseif string.sub(kind, 1, 4) == 'sse.' then
    return 'reserved-type',
      'types that begin with sse. are reserved for the gateway; choose another name'
  elseif key and (#key < 1 or #key > 256) then
    return 'bad-key', 'the key must have 1 to 256 bytes'
  elseif retry and (not string.find(retry, '^%d+$') or tonumber(retry) > 86400000) then
    return 'bad-retry', 'RETRY must be an integer from 0 to 86400000 (ms)'
  elseif #payload > max_event_bytes then
    return 'too-large',
      'the payload has ' .. #payload .. ' bytes, history.max_event_bytes is ' .. max_event_bytes
  elseif not is_utf8(payload) then
    return 'not-utf8', 'the payload is not UTF-8'
  end
end

-- The last id that a log has had, 0-0 if there is no such log; nil and a text if its key holds no
-- log.
local function last_of(log)
  local last, wrong = attempt('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if wrong then return nil, wrong end
  if last[1] then return last[1][1] end
  if redis.call('EXISTS', log) == 0 then return '0-0' end
  -- An empty log that was trimmed by hand still knows it.
  local info = redis.call('XINFO', 'STREAM', log)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
  return '0-0'
end

-- Drops the topics that are older than the retention; a text if the key holds something foreign.
local function drop_old_topics(ms, s)
  local before = '(' .. string.format('%.0f', ms - s.retention_ms)
  local _, wrong = attempt('ZREMRANGEBYSCORE', PREFIX .. 'topics', '-inf', before)
  return wrong
end

-- The heart: one atomic append. Log first, then the clock, then the live message. Answers the id;
-- the id and `duplicate`, if an event with this key is there already; or nil, a code and a text, if
-- the event can never be appended as things are.
local function append(name, kind, payload, key, retry, s)
  local channel, topic = parse_channel(name)
  local now = now_ms()
  local dedupe = key and (PREFIX .. 'dedupe:' .. channel .. ' ' .. key)
  if dedupe then
    local before, wrong = attempt('GET', dedupe)
    if wrong then return nil, 'wrong-type', wrong end
    if before and foreign_id(before, now + CLOCK_AHEAD_MS) then return before, 'duplicate' end
  end
  local log = PREFIX .. 'log:' .. channel
  local predecessor, wrong = last_of(log)
  if wrong then return nil, 'wrong-type', wrong end
  local ms, seq = next_id(now)
  local p_ms, p_seq = foreign_id(predecessor, now + CLOCK_AHEAD_MS)
  if p_ms and not after(ms, seq, p_ms, p_seq) then ms, seq = following(p_ms, p_seq) end
  wrong = topic and drop_old_topics(ms, s)
  if wrong then return nil, 'wrong-type', wrong end
  if not p_ms then
    -- An id that no clock gave: nothing could follow it. The log starts anew, behind an id that no
    -- client has, so that all of them get `trimmed`. (An expiry in the past deletes, and needs no
    -- other right than the one below.)
    redis.call('PEXPIREAT', log, 1)
    predecessor = give(ms, seq)
    ms, seq = following(ms, seq)
  end
  redis.call('XADD', log, 'MAXLEN', '~', s.max_len, show_id(ms, seq),
    'p', predecessor, 'r', retry or '-', 't', kind, 'd', payload)
  local id = give(ms, seq)
  -- By the id and not by the time, which may have been put back: a cursor must not outlive what it
  -- points to unnoticed.
  redis.call('PEXPIREAT', log, string.format('%.0f', ms + s.retention_ms))
  if topic then redis.call('ZADD', PREFIX .. 'topics', ms, topic) end
  if dedupe then redis.call('SET', dedupe, id, 'PX', s.dedupe_window_ms) end
  redis.call('PUBLISH', LIVE .. channel,
    id .. ' ' .. predecessor .. ' ' .. (retry or '-') .. ' ' .. kind .. '\n' .. payload)
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
    return refuse('usage',
      'FCALL @F@_publish 1 <channel> <type> <payload> [KEY <key>] [RETRY <ms>]')
  end
  local key, retry, wrong = options(args, 3)
  if wrong then return refuse('usage', wrong .. '; use KEY <key> and RETRY <ms>') end
  local s = settings()
  local code, text = fault(keys[1], args[1], args[2], key, retry, s.max_event_bytes)
  if code then return refuse(code, text) end
  local id
  id, code, text = append(keys[1], args[1], args[2], key, retry, s)
  return id or refuse(code, text)
end

-- ticks -------------------------------------------------------------------------------------------

-- sse_tick 0 <min_interval_ms> <seen>: moves the clock and publishes it, unless that was done less
-- than min_interval_ms ago. `seen` is the highest id that the instance knows: a clock behind it was
-- put back.
local function tick(_, args)
  local now = now_ms()
  local ms, seq = clock(now, args[2])
  local c = call('HMGET', CLOCK, 'ticked_ms', 'epoch', 'unrecorded')
  local before = number(c[1], 0)
  if before <= now and now - before < tonumber(args[1]) then return 0 end
  -- Both were given by the clock. One that it cannot have given is replaced: otherwise gateways
  -- would refuse it for ever.
  for i, reason in ipairs { 'reset', 'unrecorded' } do
    local c_ms, c_seq = parse_id(c[i + 1])
    if c[i + 1] and (not c_ms or after(c_ms, c_seq, ms, seq)) then
      ms, seq = math.max(now, ms + 1), 0
      seam(ms, reason)
    end
  end
  local id = give(next_id(now))
  redis.call('HSET', CLOCK, 'ticked_ms', string.format('%.0f', now))
  c = redis.call('HMGET', CLOCK, 'epoch', 'unrecorded')
  -- Streams live by the ticks, also where the record of plain publishes is broken.
  local r = attempt('HMGET', RECORDER, 'marker', 'n') or {}
  redis.call('PUBLISH', LIVE .. 'tick',
    id .. ' ' .. (c[1] or '0-0') .. ' ' .. (c[2] or '0-0') .. ' '
    .. (r[1] or '-') .. ' ' .. (r[2] or '0'))
  return 1
end

-- registration ------------------------------------------------------------------------------------

-- What a function raises is its answer, without the place in this file that Redis would add.
local function answering(callback)
  return function(keys, args)
    local done, answer = pcall(callback, keys, args)
    if done or type(answer) == 'table' then return answer end
    -- Redis gives pcall the text alone. One that begins with a code is an answer; others are faults
    -- of this file.
    if string.find(answer, '^%u+ ') then return redis.error_reply(answer) end
    error(answer, 0)
  end
end

-- allow-oom: a full Redis refuses events with an error for the publisher, but must not end streams
-- and sessions.
local function register_for_a_full_redis(name, callback)
  local function_name = '@F@_' .. name
  redis.register_function {
    function_name = function_name, callback = answering(callback), flags = { 'allow-oom' },
  }
end

publish = answering(publish)
redis.register_function('@F@_publish', publish)
redis.register_function('@F@_configure', answering(configure))
register_for_a_full_redis('tick', tick)
@ALIAS@
