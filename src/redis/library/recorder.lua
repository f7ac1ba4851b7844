
-- Plain publishes ---------------------------------------------------------------------------------

local function keep_rejected(channel, reason, message)
  -- The message is counted and the next ones follow, even if this key holds something else.
  redis.pcall('XADD', REJECTED, 'MAXLEN', '~', 1000, '*',
    'channel', string.sub(channel, 1, 512), 'reason', reason,
    'message', string.sub(message, 1, 4096))
end

-- sse_record 1 <channel> <token> <marker> <n> PLAIN <type> <payload> [KEY ..] [..]
--   | REJECT <reason> <message> | MARK <marker before> <n before>
-- Accepts only the next number under the token that holds the lease, and counts it in the same
-- step. Returns `recorded`, `duplicate`, `rejected <reason> <text>`, `done` (a number that was
-- counted before), `fenced`, `hole`, or `unknown` if there is no lease (the data was wiped).
local function record(keys, args)
  local token, marker, n = args[1], args[2], tonumber(args[3])
  local r = call('HMGET', RECORDER, 'token', 'marker', 'n')
  if not r[1] then return 'unknown' end
  if r[1] ~= token then return 'fenced' end
  if args[4] == 'MARK' then
    if r[2] == marker then return 'done' end
    -- Only after the message before it: one that was rejected temporarily must not be skipped.
    if r[2] ~= args[5] or r[3] ~= args[6] then return 'hole' end
    redis.call('HSET', RECORDER, 'marker', marker, 'n', n)
    return 'done'
  end
  if r[2] ~= marker then return 'hole' end
  local before = number(r[3], -1)
  if n <= before then return 'done' end
  if n ~= before + 1 then return 'hole' end
  local reply
  if args[4] == 'REJECT' then
    keep_rejected(keys[1], args[5], args[6])
    reply = 'rejected ' .. args[5] .. ' '
  else
    local o = options(args, 7)
    local channel = channel_of(keys[1])
    local code, text = fault(channel, args[5], args[6], o)
    local position
    if not code then position, code, text = append(channel, args[5], args[6], o) end
    if position then
      reply = code or 'recorded'
    else
      keep_rejected(keys[1], code, args[6])
      reply = 'rejected ' .. code .. ' ' .. text
    end
  end
  redis.call('HSET', RECORDER, 'n', n, 'plain_ms', string.format('%d', now_ms()))
  return reply
end

-- How long a channel remembers what was recorded on it, in ms.
local RECORDED_MS = 3600000

-- sse_record_across 1 <channel> <token> <marker> <n> <n before> PLAIN <type> <payload> [KEY ..]
--   [..] | REJECT <reason> <message> [<channel as published>]
-- On a cluster, where the lease is in another slot than the channel. The channel remembers the last
-- token, marker and number; all broadcasts together count as one channel. `n before` is the number
-- of the message before it on the channel, if that is not known to be recorded yet; otherwise
-- empty. Returns `recorded`, `duplicate`, `rejected <reason> <text>`, `done` (the number was
-- recorded before), `hole` (the message before it was not) or `fenced` (a later token was here
-- before). Rejected messages are kept if the channel is `{broadcast}:<topic>`.
local function record_across(keys, args)
  local token, marker, n, before = args[1], args[2], tonumber(args[3]), args[4]
  local now = now_ms()
  local ms, seq, token_epoch = foreign_position(token, now, CLOCK_AHEAD_MS)
  if not ms or not n then return reject_call('usage', 'the token or the number is malformed') end
  local is_broadcast = string.sub(keys[1], 1, #BROADCAST) == BROADCAST
  if args[5] == 'REJECT' then
    if is_broadcast then keep_rejected(args[8] or keys[1], args[6], args[7]) end
    return 'rejected ' .. args[6] .. ' '
  end
  local o = options(args, 8)
  local channel, other = channel_of(keys[1])
  local code, text = fault(channel, args[6], args[7], o)
  if code then
    if is_broadcast then keep_rejected(keys[1], code, args[7]) end
    return 'rejected ' .. code .. ' ' .. (other or text)
  end
  local recorded = PREFIX .. 'recorded:' .. (channel.topic and BROADCAST or channel.slot)
  local stored = call('GET', recorded) or ''
  local stored_token, stored_marker, stored_n = string.match(stored, '^(%S+) (%S+) (%d+)$')
  local stored_ms, stored_seq, stored_epoch = foreign_position(stored_token, now, CLOCK_AHEAD_MS)
  if stored_ms and (stored_epoch > token_epoch
    or (stored_epoch == token_epoch and is_after(stored_ms, stored_seq, ms, seq))) then
    return 'fenced'
  end
  if stored_marker == marker and n <= tonumber(stored_n) then return 'done' end
  -- Without this check, the message before would later be taken for recorded.
  if before ~= '' and not (stored_marker == marker and stored_n == before) then return 'hole' end
  local position
  position, code, text = append(channel, args[6], args[7], o)
  redis.call('SET', recorded, token .. ' ' .. marker .. ' ' .. string.format('%d', n),
    'PX', RECORDED_MS)
  if position then return code or 'recorded' end
  if is_broadcast then keep_rejected(keys[1], code, args[7]) end
  return 'rejected ' .. code .. ' ' .. text
end

-- Warns streams that plain messages may be missing.
local function warn_unrecorded(now)
  ensure_adopted_slot(BROADCAST, now)
  local position = assign(next_id(now))
  redis.call('HSET', RECORDER, 'unrecorded', position)
  redis.call('SPUBLISH', LIVE_BROADCAST, 'unrecorded ' .. position)
end

-- Streams are warned about missing plain messages for 30 days after one was recorded.
local function is_plain_used(plain_ms, now)
  local LASTS_MS = 2592000000
  return number(plain_ms) and now - number(plain_ms) < LASTS_MS
end

-- sse_progress 1 <recorder key> <token> <marker> <n> <plain 0|1> [UNRECORDED | DROPPED]: everything
-- up to a number was recorded with sse_record_across, or it was dropped. `plain`: messages were
-- recorded since the last call. Streams are warned if messages were dropped, and with UNRECORDED if
-- plain messages are in use. Returns `done`, `fenced`, or `unknown` if there is no lease.
local function progress(_, args)
  local token, marker, n = args[1], args[2], tonumber(args[3])
  if not n then return reject_call('usage', 'the number is malformed') end
  local r = call('HMGET', RECORDER, 'token', 'marker', 'n', 'plain_ms')
  if not r[1] then return 'unknown' end
  if r[1] ~= token then return 'fenced' end
  local now = now_ms()
  if args[5] == 'DROPPED' or (args[5] == 'UNRECORDED' and is_plain_used(r[4], now)) then
    warn_unrecorded(now)
  end
  if args[4] == '1' then redis.call('HSET', RECORDER, 'plain_ms', string.format('%d', now)) end
  if r[2] == marker and n <= number(r[3], -1) then return 'done' end
  redis.call('HSET', RECORDER, 'marker', marker, 'n', string.format('%d', n))
  return 'done'
end

-- Server time at which an instance that had no role began to wait for the recorder's lease.
local waiting_since

-- The name of an instance, without the number of its role.
local function instance_name(instance)
  return string.match(instance, '^[^/]*')
end

-- If Redis does not respond or this library is missing for a while, both leases expire. Those that
-- had a role last have the messages of that time, so others wait as long as a lease lasts. Nobody
-- waits for a writer that asks under the name of another role: it has given up.
local function must_wait(writer, standby, instance, ttl_ms)
  if (writer or '') == '' or instance_name(instance) == instance_name(writer)
    or instance == standby then
    return false
  end
  local now = now_ms()
  waiting_since = math.min(waiting_since or now, now)
  return now - waiting_since < tonumber(ttl_ms)
end

-- sse_lease 1 <recorder key> <role> <instance> <ttl_ms> [RELEASE]: takes, renews or releases the
-- lease of a role (recorder, standby). Returns name/value pairs: held (1 or 0), with `vacant 1` if
-- the caller must wait; for the recorder also its token, the numbering, and the last number
-- recorded (marker, n).
local function lease(_, args)
  local role, instance, ttl_ms = args[1], args[2], args[3]
  local is_writer = role == 'recorder'
  local key = PREFIX .. 'lease:' .. role .. ':' .. BROADCAST
  local holder = call('GET', key)
  if args[4] == 'RELEASE' then
    if holder == instance then
      redis.call('DEL', key)
      -- Nobody waits for one that has released its lease, even if this key holds something else.
      attempt('HSET', RECORDER, is_writer and 'holder' or 'standby', '')
      redis.call('SPUBLISH', LIVE_BROADCAST, 'vacant ' .. role)
    end
    return { 'held', '0' }
  end
  if holder and holder ~= instance then return { 'held', '0' } end
  local r = call('HMGET', RECORDER, 'token', 'marker', 'n', 'holder', 'standby', 'numbering')
  if not holder then
    local other = call('GET', PREFIX .. 'lease:' .. (is_writer and 'standby' or 'recorder') .. ':'
      .. BROADCAST)
    -- A vacant recorder lease belongs to the standby, which alone can prove what is recorded. An
    -- instance between the two would break the record.
    if is_writer and other and other ~= instance then return { 'held', '0' } end
    if not other and must_wait(r[4], r[5], instance, ttl_ms) then
      return { 'held', '0', 'vacant', '1' }
    end
  end
  redis.call('SET', key, instance, 'PX', ttl_ms)
  if not is_writer then
    if r[5] ~= instance then redis.call('HSET', RECORDER, 'standby', instance) end
    return { 'held', '1' }
  end
  waiting_since = nil
  if r[4] ~= instance then
    -- Another holder: whatever the previous one still sends is fenced off.
    local now = now_ms()
    ensure_adopted_slot(BROADCAST, now)
    r[1] = assign(next_id(now))
    redis.call('HSET', RECORDER, 'token', r[1], 'holder', instance)
  end
  return { 'held', '1', 'token', r[1], 'numbering', r[6] or '', 'marker', r[2] or '',
    'n', r[3] or '-1' }
end

-- sse_mark 1 <recorder key> <token> <marker> <unproved 0|1>: starts a numbering. Plain messages may
-- be missing if there is one already, which this one does not follow, or if the caller knows of one
-- with messages that it cannot prove to follow. Streams are warned if plain messages are in use.
local function mark(_, args)
  local r = call('HMGET', RECORDER, 'token', 'marker', 'plain_ms')
  if r[1] ~= args[1] then return 'fenced' end
  local now = now_ms()
  if (is_plain_used(r[3], now) and r[2]) or args[3] == '1' then warn_unrecorded(now) end
  -- A standby's marker is a common start only if it was published after this.
  redis.call('HSET', RECORDER, 'numbering', args[2], 'marker', args[2], 'n', 0)
  return 'marked'
end
