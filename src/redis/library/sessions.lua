
-- Sessions ----------------------------------------------------------------------------------------

-- Two connections within this time count as a repeated take-over, in ms.
local TAKE_OVERS_MS = 600000
-- Maximum difference between the clocks of two servers, in ms.
local CLOCK_SKEW_MS = 60000

-- Only gateways call these functions, with valid channels of users.
local function user_slot(channel)
  return '{' .. channel .. '}'
end

local function session_key(slot, digest)
  return PREFIX .. 'session:' .. slot .. ':' .. digest
end

local function revoked_ms(slot, get)
  local ms, wrong = get('GET', PREFIX .. 'revoked:' .. slot)
  return number(ms, 0), wrong
end

local function store_session(key, s)
  redis.call('HSET', key, 'connection', s.connection, 'first', s.first, 'opened_ms', s.opened_ms,
    'until_ms', s.until_ms, 'opens_until_ms', string.format('%d', s.opens_until_ms),
    'generation', s.generation, 'proof', s.proof)
  -- Only clusters need it.
  if s.first_broadcast ~= '' then
    redis.call('HSET', key, 'first_broadcast', s.first_broadcast)
  end
  redis.call('PEXPIRE', key, s.ttl_ms)
end

local function opened(outcome, s, generation)
  return { 'outcome', outcome, 'first', s.first, 'opened_ms', s.opened_ms, 'until_ms', s.until_ms,
    'generation', generation, 'proof', s.proof, 'first_broadcast', s.first_broadcast }
end

local function refused(outcome)
  return { 'outcome', outcome }
end

local SESSION_FIELDS = { 'connection', 'first', 'opened_ms', 'until_ms', 'generation',
  'opens_until_ms', 'times', 'taken_ms', 'proof', 'first_broadcast' }

local function read_session(key)
  local values = call('HMGET', key, unpack(SESSION_FIELDS))
  local s = {}
  for i, name in ipairs(SESSION_FIELDS) do s[name] = values[i] or nil end
  s.proof, s.first_broadcast = s.proof or '', s.first_broadcast or ''
  return s
end

-- The session continues with another connection. Each connection has a higher generation than the
-- one before, also after a wipe: only a higher generation takes over. `is_read_only`: the caller
-- publishes the notice for the former connection, and the next renewal writes the rest.
local function resume(key, slot, digest, s, a, now, is_read_only)
  local generation = string.format('%d', math.max(number(s.generation, 0) + 1, now))
  local reply = opened('resumed', s, generation)
  local notice
  if s.connection ~= '' then
    -- How often recently: two tabs with one ticket get a longer delay each time.
    local recent = now - number(s.taken_ms, 0) < TAKE_OVERS_MS
    s.times = recent and number(s.times, 0) + 1 or 1
    notice = 'taken-over ' .. digest .. ' ' .. generation .. ' ' .. s.times
  end
  if is_read_only then
    reply[#reply + 1], reply[#reply + 2] = 'notice', notice or ''
    return reply
  end
  if notice then
    redis.call('HSET', key, 'times', s.times, 'taken_ms', string.format('%d', now))
    redis.call('SPUBLISH', LIVE .. slot, notice)
  end
  redis.call('HSET', key, 'connection', a.connection, 'generation', generation)
  redis.call('PEXPIRE', key, math.max(a.ttl_ms, number(s.opens_until_ms, 0) - now))
  return reply
end

local function open_arguments(args)
  return { connection = args[2], is_expired = args[3] == '1', is_one_use = args[4] == '1',
    ttl_ms = tonumber(args[5]), until_ms = args[6], issued_ms = tonumber(args[7]),
    cursor = args[8], left_ms = tonumber(args[9]), proof = args[10], new_proof = args[11],
    first_broadcast = args[12] or '' }
end

-- Resumes a session that exists, unless it may not be resumed.
local function resume_existing(key, slot, digest, s, a, now, is_read_only)
  if a.is_one_use then return refused('used') end
  if now >= number(s.until_ms, 0) then return refused('over') end
  if number(s.opened_ms, 0) <= revoked_ms(slot, call) then return refused('revoked') end
  if s.proof ~= '' and s.proof ~= a.proof then return refused('stranger') end
  return resume(key, slot, digest, s, a, now, is_read_only)
end

-- The session's first cursor: the client's own one if it is possible and not ahead of the clock,
-- which would keep the session from ever resuming. On a cluster, the user's slot may have moved
-- here from a server of a later epoch, whose clock may be slightly ahead.
local function first_cursor(cursor, now)
  local ms, seq, cursor_epoch = foreign_position(cursor, now)
  if ms and (cursor_epoch < epoch
    or (cursor_epoch == epoch and is_after(clock_ms, clock_seq, ms, seq))
    or (is_cluster and cursor_epoch > epoch and ms <= math.max(clock_ms, now) + CLOCK_SKEW_MS)) then
    return cursor
  end
  return show_position(clock_ms, clock_seq)
end

-- sse_open 1 <channel> <digest> <connection> <expired 0|1> <one_use 0|1> <ttl_ms> <until_ms>
-- <issued_ms> <cursor or empty> <left_ms> <proof shown> <new proof> [<first broadcast>]
-- Opens or resumes the session of a ticket. For left_ms the ticket could open a session, so its
-- session is kept at least as long. A session that was opened with a proof (the digest of a cookie)
-- is resumed only with it. The first broadcast is any text that the session keeps. Returns
-- name/value pairs; the outcome is opened, resumed, expired, used, over, stranger or revoked.
local function open(keys, args)
  local slot = user_slot(keys[1])
  local digest, a = args[1], open_arguments(args)
  local key = session_key(slot, digest)
  local now = now_ms()
  ensure_adopted_slot(slot, now)
  advance(now, 0)
  local s = read_session(key)
  if s.first then return resume_existing(key, slot, digest, s, a, now) end
  if a.is_expired then return refused('expired') end
  if tonumber(a.until_ms) <= now then return refused('over') end
  if a.issued_ms < revoked_ms(slot, call) then return refused('revoked') end
  local opened_ms = string.format('%d', now)
  s = { connection = a.connection, first = first_cursor(a.cursor, now), opened_ms = opened_ms,
    until_ms = a.until_ms, opens_until_ms = now + a.left_ms, generation = opened_ms,
    proof = a.new_proof, first_broadcast = a.first_broadcast,
    ttl_ms = math.max(a.ttl_ms, a.left_ms) }
  store_session(key, s)
  return opened('opened', s, opened_ms)
end

-- sse_resume 1 <channel> <the arguments of sse_open>
-- Resumes a session without writing, while the server refuses writes (NOREPLICAS). Without a
-- session the outcome is `missing`. Otherwise also returns what the caller must publish on the
-- user's live channel, because a function without writes may not: `notice`, empty if nothing.
local function resume_only(keys, args)
  local slot = user_slot(keys[1])
  local digest, a = args[1], open_arguments(args)
  local key = session_key(slot, digest)
  local s = read_session(key)
  if not s.first then return refused('missing') end
  return resume_existing(key, slot, digest, s, a, now_ms(), true)
end

-- Renews the session whose arguments follow `at`; see below.
local function renew_one(slot, args, at, now, first_broadcast)
  local key = session_key(slot, args[at + 1])
  local found, wrong = attempt('HMGET', key, 'connection', 'opens_until_ms', 'generation')
  local revoked, wrong_too = revoked_ms(slot, attempt)
  if wrong or wrong_too then return 'wrong-type: ' .. (wrong or wrong_too) end
  -- The session stays as it is until it expires: its ticket must not open another one.
  if tonumber(args[at + 4]) <= revoked then return 'revoked' end
  local holder, opens_until_ms = found[1], number(found[2], 0)
  local stored_generation, generation = number(found[3], 0), tonumber(args[at + 8])
  if holder and stored_generation > generation then return holder == '' and 'ok' or 'taken-over' end
  -- A Redis failure ends no session: what it lost, or knows an older generation of, is written
  -- again.
  if not holder or stored_generation < generation then
    store_session(key, { connection = args[at + 2], first = args[at + 3],
      opened_ms = args[at + 4], until_ms = args[at + 5], ttl_ms = args[at + 6],
      generation = args[at + 8], proof = args[at + 9], opens_until_ms = opens_until_ms,
      first_broadcast = first_broadcast })
  end
  if args[at + 7] == '1' then redis.call('HSET', key, 'connection', '') end
  redis.call('PEXPIRE', key, math.max(tonumber(args[at + 6]), opens_until_ms - now))
  return 'ok'
end

-- sse_renew <n> <channel>.. then for each: <digest> <connection> <first> <opened_ms> <until_ms>
-- <ttl_ms> <closing 0|1> <generation> <proof> [<first broadcast>]
-- Keeps sessions alive from the holder's memory, or gives them back. Returns for each ok,
-- taken-over, revoked, or `wrong-type: <text>`: a foreign key of one session must not end the
-- others.
local function renew(keys, args)
  local now = now_ms()
  local replies = {}
  -- Gateways of library 5 do not know the last argument.
  local length = #args == #keys * 10 and 10 or 9
  identify()
  for i, channel in ipairs(keys) do
    local slot, at = user_slot(channel), (i - 1) * length
    if not is_adopted_slot(slot) then refuse_unadopted() end
    replies[i] = renew_one(slot, args, at, now, length == 10 and args[at + 10] or '')
  end
  return replies
end

-- sse_revoke 1 <channel> <ttl_ms>: ends the user's sessions on all instances.
local function revoke(keys, args)
  local slot = user_slot(keys[1])
  identify()
  if not is_adopted_slot(slot) then refuse_unadopted() end
  local now = string.format('%d', now_ms())
  redis.call('SET', PREFIX .. 'revoked:' .. slot, now, 'PX', args[1])
  return redis.call('SPUBLISH', LIVE .. slot, 'revoke ' .. now)
end
