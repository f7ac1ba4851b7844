-- Sessions and revocations (ARCHITECTURE.md#tickets-and-sessions). Follows library.lua.

local function revoked_ms(user, get)
  local ms, wrong = get('GET', PREFIX .. 'revoked:' .. user)
  return number(ms, 0), wrong
end

local function store_session(key, user, connection, first, opened_ms, until_ms, good_ms, turn,
  ttl_ms, proof)
  redis.call('HSET', key, 'user', user, 'connection', connection, 'first', first,
    'opened_ms', opened_ms,
    'until_ms', until_ms, 'good_ms', string.format('%.0f', good_ms), 'turn', turn, 'proof', proof)
  redis.call('PEXPIRE', key, ttl_ms)
end

-- sse_open 1 <digest> <connection> <user> <expired 0|1> <one_use 0|1> <ttl_ms> <until_ms>
-- <issued_ms> <cursor or empty> <left_ms> <proof shown> <new proof> [NAMED]: opens or resumes the
-- session of a ticket; for left_ms the ticket could open a session, so its session is not forgotten
-- before. A session that was opened with a proof (the digest of a cookie) is resumed only with it;
-- an empty one asks for none. Replies with outcome: opened, resumed, expired, used, over, stranger
-- or revoked; if opened or resumed, also with first, opened_ms, until_ms, last (id of the clock),
-- generation and proof. Each connection of a session has a higher generation (turn) than the one
-- before, also across a wipe: only a higher one takes over.
local function open(keys, args)
  local key = PREFIX .. 'session:' .. keys[1]
  local connection, user, named = args[1], args[2], args[12]
  local now = now_ms()
  local last = show_id(clock(now))
  local s = call('HMGET', key, 'connection', 'first', 'opened_ms', 'until_ms', 'turn',
    'good_ms', 'times', 'taken_ms', 'proof')
  if s[2] then
    if args[4] == '1' then return reply(named, { 'outcome', 'used' }) end
    if now >= tonumber(s[4]) then return reply(named, { 'outcome', 'over' }) end
    if tonumber(s[3]) <= revoked_ms(user, call) then
      return reply(named, { 'outcome', 'revoked' })
    end
    if s[9] and s[9] ~= '' and s[9] ~= args[10] then
      return reply(named, { 'outcome', 'stranger' })
    end
    local turn = string.format('%.0f', math.max(tonumber(s[5]) + 1, now))
    if s[1] ~= '' then
      -- Number of recent takeovers: two tabs with the same ticket must wait longer each time.
      local times = now - tonumber(s[8] or 0) < 600000 and tonumber(s[7] or 0) + 1 or 1
      redis.call('HSET', key, 'times', times, 'taken_ms', string.format('%.0f', now))
      redis.call('PUBLISH', LIVE .. 'control',
        'taken-over ' .. keys[1] .. ' ' .. turn .. ' ' .. times)
    end
    redis.call('HSET', key, 'connection', connection, 'turn', turn)
    redis.call('PEXPIRE', key, math.max(tonumber(args[5]), tonumber(s[6] or 0) - now))
    return reply(named, {
      'outcome', 'resumed', 'first', s[2], 'opened_ms', s[3], 'until_ms', s[4], 'last', last,
      'generation', turn, 'proof', s[9] or '',
    })
  end
  if args[3] == '1' then return reply(named, { 'outcome', 'expired' }) end
  if tonumber(args[6]) <= now then return reply(named, { 'outcome', 'over' }) end
  if tonumber(args[7]) < revoked_ms(user, call) then
    return reply(named, { 'outcome', 'revoked' })
  end
  -- A cursor ahead of the clock must not keep the session from resuming ever after.
  local first = last
  if args[8] ~= '' then
    local c_ms, c_seq = foreign_id(args[8], now + AHEAD_MS)
    local l_ms, l_seq = parse_id(last)
    if c_ms and after(l_ms, l_seq, c_ms, c_seq) then first = args[8] end
  end
  local opened_ms = string.format('%.0f', now)
  local left_ms = tonumber(args[9])
  store_session(key, user, connection, first, opened_ms, args[6], now + left_ms, opened_ms,
    math.max(tonumber(args[5]), left_ms), args[11] or '')
  return reply(named, {
    'outcome', 'opened', 'first', first, 'opened_ms', opened_ms, 'until_ms', args[6], 'last', last,
    'generation', opened_ms, 'proof', args[11] or '',
  })
end

-- sse_renew <n> <digest>.. then for each: <connection> <user> <first> <opened_ms> <until_ms>
-- <ttl_ms> <closing 0|1> <turn> <proof> Keeps sessions alive from the holder's memory, or gives
-- them back. Answers for each ok, taken-over, revoked, or `wrong-type: <text>`: a foreign key of
-- one session must not end the others.
local function renew(keys, args)
  local answers = {}
  -- Gateways of version 1 give no proof.
  local width = #args / #keys
  for i, digest in ipairs(keys) do
    local a = (i - 1) * width
    local connection, user, first = args[a + 1], args[a + 2], args[a + 3]
    local opened_ms, until_ms = args[a + 4], args[a + 5]
    local ttl_ms, closing = args[a + 6], args[a + 7] == '1'
    local key = PREFIX .. 'session:' .. digest
    local s, wrong = attempt('HMGET', key, 'connection', 'good_ms', 'turn')
    local revoked, wrong_too = revoked_ms(user, attempt)
    s, wrong = s or {}, wrong or wrong_too
    local holder, turn = s[1], tonumber(args[a + 8])
    if wrong then
      answers[i] = 'wrong-type: ' .. wrong
    elseif tonumber(opened_ms) <= revoked then
      -- The session stays as it is until it expires: its ticket must not open another one.
      answers[i] = 'revoked'
    elseif holder and tonumber(s[3]) > turn then
      answers[i] = holder == '' and 'ok' or 'taken-over'
    else
      -- A fault of Redis ends no session: what it forgot, or knows an older turn of, is written
      -- again.
      if not holder or tonumber(s[3]) < turn then
        store_session(key, user, connection, first, opened_ms, until_ms, tonumber(s[2] or 0),
          args[a + 8], ttl_ms,
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

register_for_a_full_redis('open', open)
register_for_a_full_redis('renew', renew)
register_for_a_full_redis('revoke', revoke)
