
-- Plain publishes ---------------------------------------------------------------------------------

-- Streams are warned about missing plain messages for this long after one was recorded, in ms: 30
-- days.
local PLAIN_MS = 2592000000

local function keep_rejected(channel, reason, message)
  -- The message is counted and the next ones follow, even if this key holds something else.
  redis.pcall('XADD', REJECTED, 'MAXLEN', '~', 1000, '*',
    'channel', string.sub(channel, 1, 512), 'reason', reason,
    'message', string.sub(message, 1, 4096))
end

-- sse_record 1 <channel> <token> <marker> <n> PLAIN <type> <payload> [KEY ..] [RETRY ..]
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
    local key, retry = options(args, 7)
    local channel = channel_of(keys[1])
    local code, text = fault(channel, args[5], args[6], key, retry)
    local position
    if not code then position, code, text = append(channel, args[5], args[6], key, retry) end
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

-- sse_lease 1 <recorder key> <role> <instance> <ttl_ms> [RELEASE]: takes, renews or releases the
-- lease of a role (recorder, standby). Returns name/value pairs: held (1 or 0); for the recorder
-- also its token and the last number recorded (marker, n).
local function lease(_, args)
  local role, instance, ttl_ms = args[1], args[2], args[3]
  local key = PREFIX .. 'lease:' .. role .. ':' .. BROADCAST
  local holder = call('GET', key)
  if args[4] == 'RELEASE' then
    if holder == instance then
      redis.call('DEL', key)
      redis.call('SPUBLISH', LIVE_BROADCAST, 'vacant ' .. role)
    end
    return { 'held', '0' }
  end
  if holder and holder ~= instance then return { 'held', '0' } end
  if role == 'recorder' and not holder then
    -- A vacant recorder lease belongs to the standby, which alone can prove what is recorded. An
    -- instance between the two would break the record.
    local standby = call('GET', PREFIX .. 'lease:standby:' .. BROADCAST)
    if standby and standby ~= instance then return { 'held', '0' } end
  end
  local r = role == 'recorder' and call('HMGET', RECORDER, 'token', 'marker', 'n', 'holder')
  redis.call('SET', key, instance, 'PX', ttl_ms)
  if not r then return { 'held', '1' } end
  if r[4] ~= instance then
    -- Another holder: whatever the previous one still sends is fenced off.
    local now = now_ms()
    ensure_adopted(now)
    r[1] = assign(next_id(now))
    redis.call('HSET', RECORDER, 'token', r[1], 'holder', instance)
  end
  return { 'held', '1', 'token', r[1], 'marker', r[2] or '', 'n', r[3] or '-1' }
end

-- sse_mark 1 <recorder key> <token> <marker> <unproved 0|1>: starts a numbering. Plain messages may
-- be missing if there is one already, which this one does not follow, or if the caller knows of one
-- with messages that it cannot prove to follow. Streams are warned if plain messages are in use.
local function mark(_, args)
  local r = call('HMGET', RECORDER, 'token', 'marker', 'plain_ms')
  if r[1] ~= args[1] then return 'fenced' end
  local now = now_ms()
  local is_used = number(r[3]) and now - number(r[3]) < PLAIN_MS
  if (is_used and r[2]) or args[3] == '1' then
    ensure_adopted(now)
    local position = assign(next_id(now))
    redis.call('HSET', RECORDER, 'unrecorded', position)
    redis.call('SPUBLISH', LIVE_BROADCAST, 'unrecorded ' .. position)
  end
  redis.call('HSET', RECORDER, 'marker', args[2], 'n', 0)
  return 'marked'
end
