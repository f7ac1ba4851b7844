-- Plain publishes: leases of the recorder, and what it records (ARCHITECTURE.md#recorder). Follows
-- library.lua.

local function reject(channel, reason, message)
  -- The message is counted and later ones are recorded, even if this key itself has the wrong type.
  redis.pcall('XADD', PREFIX .. 'rejected', 'MAXLEN', '~', 1000, '*',
    'channel', string.sub(channel, 1, 512), 'reason', reason,
    'message', string.sub(message, 1, 4096))
end

-- sse_record 1 <channel> <token> <marker> <n> PLAIN <type> <payload> [KEY ..] [RETRY ..] | REJECT
-- <reason> <message>
--   | MARK <marker before> <n before>
-- Accepts only the next number under the token that holds the lease, and counts it in the same
-- step. Answers `recorded`, `duplicate`, `rejected <reason>[ <text>]`, `done` (a number that was
-- counted before), `fenced` or `hole`. Gateways up to version 2 say EVENT for PLAIN: they know
-- neither `duplicate` nor a text behind the reason.
local function record(keys, args)
  local token, marker, n = args[1], args[2], tonumber(args[3])
  local r = call('HMGET', RECORDER, 'token', 'marker', 'n')
  if r[1] ~= token then return 'fenced' end
  if args[4] == 'MARK' then
    if r[2] == marker then return 'done' end
    -- Only behind the message before it: one that was refused for now must not be skipped.
    if r[2] ~= args[5] or r[3] ~= args[6] then return 'hole' end
    redis.call('HSET', RECORDER, 'marker', marker, 'n', n)
    return 'done'
  end
  if r[2] ~= marker then return 'hole' end
  local before = number(r[3], -1)
  if n <= before then return 'done' end
  if n ~= before + 1 then return 'hole' end
  local answer
  if args[4] == 'REJECT' then
    reject(keys[1], args[5], args[6])
    answer = 'rejected ' .. args[5]
  else
    local key, retry = options(args, 7)
    local s = settings()
    local code, text = fault(keys[1], args[5], args[6], key, retry, s.max_event_bytes)
    local id
    if not code then id, code, text = append(keys[1], args[5], args[6], key, retry, s) end
    local knows_more = args[4] == 'PLAIN'
    if id then
      answer = knows_more and code or 'recorded'
    else
      reject(keys[1], code, args[6])
      answer = 'rejected ' .. code .. (knows_more and ' ' .. text or '')
    end
  end
  redis.call('HSET', RECORDER, 'n', n)
  return answer
end

-- sse_lease 0 <role> <instance> <ttl_ms> [NAMED | RELEASE]. Takes, renews or gives back the lease
-- of a role (recorder, standby). Replies with held; if the recorder's lease is held, also with
-- token, marker and n.
local function lease(_, args)
  local role, instance, ttl_ms = args[1], args[2], args[3]
  local key = PREFIX .. 'lease:' .. role
  local holder = call('GET', key)
  if args[4] == 'RELEASE' then
    if holder == instance then
      redis.call('DEL', key)
      redis.call('PUBLISH', LIVE .. 'control', 'vacant ' .. role)
    end
    return { 0 }
  end
  local named = args[4]
  if holder and holder ~= instance then return reply(named, { 'held', 0 }) end
  if role == 'recorder' and not holder then
    -- A vacant record is the standby's: it alone can prove what is recorded. An instance between
    -- the two would break the record.
    local standby = call('GET', PREFIX .. 'lease:standby')
    if standby and standby ~= instance then return reply(named, { 'held', 0 }) end
  end
  local r = role == 'recorder' and call('HMGET', RECORDER, 'token', 'marker', 'n', 'holder')
  redis.call('SET', key, instance, 'PX', ttl_ms)
  if not r then return reply(named, { 'held', 1 }) end
  if r[4] ~= instance then
    -- Another holder, or none that is known: whatever the last one still sends is fenced off.
    r[1] = give(next_id(now_ms()))
    redis.call('HSET', RECORDER, 'token', r[1], 'holder', instance)
  end
  return reply(named, { 'held', 1, 'token', r[1], 'marker', r[2] or '', 'n', r[3] or '-1' })
end

-- sse_mark 0 <token> <marker> <known 0|1>: starts a numbering. If there is one here that it does
-- not follow, or if the caller knows that there was one which it cannot prove to follow, plain
-- publishes may be missing and a seam says so.
local function mark(_, args)
  local r = call('HMGET', RECORDER, 'token', 'marker')
  if r[1] ~= args[1] then return 'fenced' end
  if r[2] or args[3] == '1' then
    local now = now_ms()
    local ms = clock(now)
    seam(math.max(now, ms + 1), 'unrecorded')
  end
  redis.call('HSET', RECORDER, 'marker', args[2], 'n', 0)
  return 'marked'
end

redis.register_function('@F@_record', answering(record))
register_for_a_full_redis('lease', lease)
register_for_a_full_redis('mark', mark)
