
-- Sessions ----------------------------------------------------------------------------------------

-- Two connections within this time count as a repeated take-over, in ms.
local TAKE_OVERS_MS = 600000

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

-- A session is one text, because a string costs a third of a hash to read, write and expire. The
-- fields are separated by spaces: whether a connection holds it (1 or 0), the generation of that
-- connection, the first cursor, opened_ms, until_ms, until when the ticket could open it, how often
-- it was taken over recently, when last, the proof, and the first broadcast (only on clusters).
local SESSION = '^([01]) (%d+) (%S*) (%d+) (%d+) (%d+) (%d+) (%d+) (%S*) (.*)$'

local function session_text(s)
  return s.held .. ' ' .. s.generation .. ' ' .. s.first .. ' ' .. s.opened_ms .. ' ' .. s.until_ms
    .. ' ' .. s.opens_until_ms .. ' ' .. s.times .. ' ' .. s.taken_ms .. ' ' .. s.proof .. ' '
    .. s.first_broadcast
end

local function store_session(key, s, ttl_ms)
  redis.call('SET', key, session_text(s), 'PX', ttl_ms)
end

-- Libraries up to version 6 stored hashes.
local HASH_FIELDS = { 'connection', 'first', 'opened_ms', 'until_ms', 'generation',
  'opens_until_ms', 'times', 'taken_ms', 'proof', 'first_broadcast' }

-- A session of an earlier library. Also returns a text if the key holds something else.
local function read_hash(key)
  local values, wrong = attempt('HMGET', key, unpack(HASH_FIELDS))
  if wrong then return nil, wrong end
  local s = {}
  for i, name in ipairs(HASH_FIELDS) do s[name] = values[i] or nil end
  if not s.first then return nil end
  s.held = s.connection ~= '' and '1' or '0'
  for _, name in ipairs({ 'opened_ms', 'until_ms', 'generation', 'opens_until_ms', 'times',
    'taken_ms' }) do
    s[name] = string.format('%d', number(s[name], 0))
  end
  s.proof, s.first_broadcast = s.proof or '', s.first_broadcast or ''
  return s
end

-- The session in a reply to GET, or to SET with GET; nil without one. Also returns a text if the
-- key holds something else.
local function session_of(reply, key)
  if not reply then return nil end
  if type(reply) == 'table' then
    if reply.err and string.find(reply.err, 'WRONGTYPE', 1, true) then return read_hash(key) end
    error(reply)
  end
  local held, generation, first, opened_ms, until_ms, opens_until_ms, times, taken_ms, proof,
    first_broadcast = string.match(reply, SESSION)
  if not held then return nil, wrong_type(key) end
  return { held = held, generation = generation, first = first, opened_ms = opened_ms,
    until_ms = until_ms, opens_until_ms = opens_until_ms, times = times, taken_ms = taken_ms,
    proof = proof, first_broadcast = first_broadcast }
end

local function read_session(key)
  return session_of(redis.pcall('GET', key), key)
end

local function require_session(s, wrong)
  if wrong then error(reject_call('wrong-type', wrong)) end
  return s
end

-- The reply of sse_open and sse_resume: for gateways since version 7 one text, because each value
-- of a reply costs time.
local function opened(outcome, s, generation, is_text)
  if is_text then
    return outcome .. ' ' .. s.first .. ' ' .. s.opened_ms .. ' ' .. s.until_ms .. ' ' .. generation
      .. ' ' .. s.proof .. ' ' .. s.first_broadcast
  end
  return { 'outcome', outcome, 'first', s.first, 'opened_ms', s.opened_ms, 'until_ms', s.until_ms,
    'generation', generation, 'proof', s.proof, 'first_broadcast', s.first_broadcast }
end

local function refused(outcome, is_text)
  return is_text and outcome or { 'outcome', outcome }
end

-- A session with this generation is shared: its connections do not take over from each other. It
-- was opened with a cookie, which all tabs of a browser have. Each of its connections keeps it.
local SHARED = '0'

-- The session continues with another connection. Each connection has a higher generation than the
-- one before, also after a wipe: only a higher generation takes over. `is_read_only`: the caller
-- publishes the notice for the former connection, and the next renewal writes the rest.
local function resume(key, slot, digest, s, a, now, is_read_only)
  if s.generation == SHARED then
    if not is_read_only then
      redis.call('PEXPIRE', key, math.max(a.ttl_ms, s.opens_until_ms - now))
    end
    return opened('resumed', s, SHARED, a.is_text)
  end
  local generation = string.format('%d', math.max(tonumber(s.generation) + 1, now))
  local reply = opened('resumed', s, generation, a.is_text)
  local notice
  if s.held == '1' then
    -- How often recently: two tabs with one ticket get a longer delay each time.
    local recent = now - tonumber(s.taken_ms) < TAKE_OVERS_MS
    s.times = recent and s.times + 1 or 1
    s.taken_ms = string.format('%d', now)
    notice = 'taken-over ' .. digest .. ' ' .. generation .. ' ' .. s.times
  end
  if is_read_only then
    reply[#reply + 1], reply[#reply + 2] = 'notice', notice or ''
    return reply
  end
  s.held, s.generation = '1', generation
  store_session(key, s, math.max(a.ttl_ms, s.opens_until_ms - now))
  if notice then redis.call('SPUBLISH', LIVE .. slot, notice) end
  return reply
end

local function open_arguments(args)
  return { is_expired = args[3] == '1', is_one_use = args[4] == '1', ttl_ms = tonumber(args[5]),
    until_ms = args[6], issued_ms = tonumber(args[7]), cursor = args[8],
    left_ms = tonumber(args[9]), proof = args[10], new_proof = args[11],
    first_broadcast = args[12] or '', is_text = args[13] == 'TEXT',
    is_shared = args[14] == 'SHARED' }
end

-- Resumes a session that exists, unless it may not be resumed.
local function resume_existing(key, slot, digest, s, a, now, revoked, is_read_only)
  if a.is_one_use then
    if s.generation ~= SHARED then return refused('used', a.is_text) end
    if a.is_expired then return refused('expired', a.is_text) end
  end
  if now >= tonumber(s.until_ms) then return refused('over', a.is_text) end
  if tonumber(s.opened_ms) <= revoked then return refused('revoked', a.is_text) end
  if s.proof ~= '' and s.proof ~= a.proof then return refused('stranger', a.is_text) end
  return resume(key, slot, digest, s, a, now, is_read_only)
end

-- The session's first cursor: the client's own one if it is possible and not ahead of the clock,
-- which would keep the session from ever resuming.
local function first_cursor(cursor, now)
  local ms, seq, cursor_epoch = foreign_position(cursor, now)
  if ms and (cursor_epoch < epoch
    or (cursor_epoch == epoch and is_after(clock_ms, clock_seq, ms, seq))) then
    return cursor
  end
  return show_position(clock_ms, clock_seq)
end

-- sse_open 1 <channel> <digest> <connection> <expired 0|1> <one_use 0|1> <ttl_ms> <until_ms>
-- <issued_ms> <cursor or empty> <left_ms> <proof shown> <new proof>
-- [<first broadcast> [TEXT [SHARED]]]
-- Opens or resumes the session of a ticket. For left_ms the ticket could open a session, so its
-- session is kept at least as long. A session that was opened with a proof (the digest of a cookie)
-- is resumed only with it. The first broadcast is any text that the session keeps. A session that
-- is opened with SHARED is shared by its connections; with one_use it can be resumed until the
-- ticket has expired. Returns name/value pairs; the outcome is opened, resumed, expired, used,
-- over, stranger or revoked. With TEXT, returns the outcome and, if it is one of the first two, the
-- values first, opened_ms, until_ms, generation, proof and first_broadcast, separated by spaces.
local function open(keys, args)
  local slot = user_slot(keys[1])
  local digest, a = args[1], open_arguments(args)
  local key = session_key(slot, digest)
  local now = now_ms()
  ensure_adopted_slot(slot, now)
  advance(now, 0)
  local revoked = revoked_ms(slot, call)
  local fault = (a.is_expired and 'expired') or (tonumber(a.until_ms) <= now and 'over')
    or (a.issued_ms < revoked and 'revoked')
  if fault then
    local s = require_session(read_session(key))
    if s then return resume_existing(key, slot, digest, s, a, now, revoked) end
    return refused(fault, a.is_text)
  end
  local now_text = string.format('%d', now)
  local generation = a.is_shared and SHARED or now_text
  local new = { held = '1', generation = generation, first = first_cursor(a.cursor, now),
    opened_ms = now_text, until_ms = a.until_ms,
    opens_until_ms = string.format('%d', now + a.left_ms), times = '0', taken_ms = '0',
    proof = a.new_proof, first_broadcast = a.first_broadcast }
  local before = redis.pcall('SET', key, session_text(new), 'PX', math.max(a.ttl_ms, a.left_ms),
    'NX', 'GET')
  local s = require_session(session_of(before, key))
  if s then return resume_existing(key, slot, digest, s, a, now, revoked) end
  return opened('opened', new, generation, a.is_text)
end

-- sse_resume 1 <channel> <the arguments of sse_open, without TEXT and SHARED>
-- Resumes a session without writing, while the server refuses writes (NOREPLICAS). Without a
-- session the outcome is `missing`. Otherwise also returns what the caller must publish on the
-- user's live channel, because a function without writes may not: `notice`, empty if nothing.
local function resume_only(keys, args)
  local slot = user_slot(keys[1])
  local digest, a = args[1], open_arguments(args)
  a.is_text = false
  local key = session_key(slot, digest)
  local s = require_session(read_session(key))
  if not s then return refused('missing') end
  return resume_existing(key, slot, digest, s, a, now_ms(), revoked_ms(slot, call), true)
end

-- Renews the session whose arguments follow `at`; see below.
local function renew_one(slot, args, at, now, first_broadcast)
  local key = session_key(slot, args[at + 1])
  local s, wrong = read_session(key)
  local revoked, wrong_too = revoked_ms(slot, attempt)
  if wrong or wrong_too then return 'wrong-type: ' .. (wrong or wrong_too) end
  -- The session stays as it is until it expires: its ticket must not open another one.
  if tonumber(args[at + 4]) <= revoked then return 'revoked' end
  local stored_generation, generation = s and tonumber(s.generation), tonumber(args[at + 8])
  if s and stored_generation > generation then
    return (s.held == '0' or args[at + 8] == SHARED) and 'ok' or 'taken-over'
  end
  local is_closing = args[at + 7] == '1'
  local ttl_ms = math.max(tonumber(args[at + 6]), (s and s.opens_until_ms or 0) - now)
  -- A Redis failure ends no session: what it lost, or knows an older generation of, is written
  -- again.
  if not s or stored_generation < generation then
    s = { held = '1', generation = args[at + 8], first = args[at + 3], opened_ms = args[at + 4],
      until_ms = args[at + 5], opens_until_ms = s and s.opens_until_ms or '0',
      times = s and s.times or '0', taken_ms = s and s.taken_ms or '0', proof = args[at + 9],
      first_broadcast = first_broadcast }
  elseif not is_closing then
    redis.call('PEXPIRE', key, ttl_ms)
    return 'ok'
  end
  -- Another connection of a shared session renews it before it expires.
  if is_closing then s.held = '0' end
  store_session(key, s, ttl_ms)
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
