
-- Presence ----------------------------------------------------------------------------------------
-- Which users have a stream (ARCHITECTURE.md#presence). Every instance reports how many streams its
-- users have, under a name that it gives up with its lease. All keys are in the slot of the
-- broadcasts.

-- A function, because the whole library may have 200 local variables.
local presence = (function()
  -- user -> number of instances where the user has a stream.
  local USERS = PREFIX .. 'presence:' .. BROADCAST
  -- name of an instance -> when its lease ends, in ms. 0: it is being removed.
  local LEASES = PREFIX .. 'presence-leases:' .. BROADCAST
  -- user without a stream -> when the user counts as offline, in ms.
  local LEAVING = PREFIX .. 'presence-leaving:' .. BROADCAST
  local ANSWERS = PREFIX .. 'presence-answers:' .. BROADCAST .. ':'
  -- A field that no user can have: number of the last report.
  local LAST_REPORT = '*'

  -- Maximum number of users in a report.
  local MAX_REPORTED = 500
  -- Maximum number of users that one call removes or declares offline.
  local BATCH = 200
  -- Time between two sweeps, in ms; while there is more to do, and otherwise.
  local BUSY_SWEEP_MS, SWEEP_MS = 5, 500
  -- The keys expire this long after the last report, if presence is not used any more: 1 day.
  local KEPT_MS = 86400000
  -- Their expiry is renewed this often.
  local RENEWAL_MS = 60000
  -- How long answers about a topic are kept, in ms.
  local ANSWERED_MS = 10000

  -- user -> number of streams at one instance.
  local function streams_key(instance)
    return USERS .. ':' .. instance
  end

  local function is_token(text)
    return text and #text <= 64 and string.find(text, '^[%w-]+$') ~= nil
  end

  -- Appends an event before the change that it reports is written: a call that fails is repeated.
  local function announce(kind, user)
    local payload = '{"user":"' .. string.gsub(user, '"', '\\"') .. '"}'
    local channel = channel_of(BROADCAST .. ':presence')
    -- A channel rule may keep fewer of these events, but refuses none and drops no id. It applies
    -- to other events of the channel.
    local rate, is_ephemeral = channel.rate, channel.is_ephemeral
    channel.rate, channel.is_ephemeral = nil, nil
    local done, position, code, text = pcall(append, channel, kind, payload, NO_OPTIONS)
    channel.rate, channel.is_ephemeral = rate, is_ephemeral
    if not done then error(position) end
    if not position then error(reject_call(code, text)) end
  end

  -- The user has a first stream at an instance.
  local function arrive(user)
    local instances = number(redis.call('HGET', USERS, user), 0)
    if instances == 0 and redis.call('ZREM', LEAVING, user) == 0 then
      announce('sse.online', user)
    end
    redis.call('HSET', USERS, user, string.format('%d', instances + 1))
  end

  -- The user has no stream at an instance any more.
  local function depart(user, now, linger_ms)
    local instances = number(redis.call('HGET', USERS, user), 1)
    if instances > 1 then
      redis.call('HSET', USERS, user, string.format('%d', instances - 1))
    else
      redis.call('HDEL', USERS, user)
      redis.call('ZADD', LEAVING, string.format('%d', now + linger_ms), user)
    end
  end

  local function set_streams(key, user, streams, now, linger_ms)
    local before = redis.call('HGET', key, user)
    if streams == '0' then
      if not before then return end
      depart(user, now, linger_ms)
      redis.call('HDEL', key, user)
    elseif streams ~= before then
      if not before then arrive(user) end
      redis.call('HSET', key, user, streams)
    end
  end

  -- Removes users of an instance whose lease has ended. Returns whether there may be more to do.
  local function remove_instance(ended_ms, now, linger_ms)
    local instance = call('ZRANGEBYSCORE', LEASES, '-inf', string.format('%d', ended_ms),
      'LIMIT', 0, 1)[1]
    if not instance then return false end
    -- From now on, it must report everything again, under another name.
    redis.call('ZADD', LEASES, 0, instance)
    local key = streams_key(instance)
    local fields = attempt('HRANDFIELD', key, BATCH) or {}
    for _, user in ipairs(fields) do
      if user ~= LAST_REPORT then depart(user, now, linger_ms) end
    end
    if #fields > 0 then redis.call('HDEL', key, unpack(fields)) end
    if #fields < BATCH then redis.call('ZREM', LEASES, instance) end
    return true
  end

  -- Declares users offline whose linger has ended. Returns whether there may be more.
  local function end_lingers(now)
    local users = call('ZRANGEBYSCORE', LEAVING, '-inf', string.format('%d', now),
      'LIMIT', 0, BATCH)
    for _, user in ipairs(users) do
      if is_name(user) then announce('sse.offline', user) end
      redis.call('ZREM', LEAVING, user)
    end
    return #users == BATCH
  end

  local swept_ms, is_unfinished = 0, false
  -- When any instance has reported.
  local reported_ms = 0
  -- No lease ends before, because no instance could reach this server to renew it.
  local spared_until_ms = 0

  -- Returns whether there is more to do.
  local function sweep(now, lease_ms, linger_ms)
    -- The server was unavailable, or is a new primary.
    local silent_ms = now - reported_ms
    if silent_ms < 0 or silent_ms > lease_ms / 2 then spared_until_ms = now + lease_ms end
    reported_ms = now
    local age_ms = now - swept_ms
    local least_ms = is_unfinished and BUSY_SWEEP_MS or SWEEP_MS
    if age_ms >= 0 and age_ms < least_ms then return is_unfinished end
    swept_ms = now
    local ended_ms = now < spared_until_ms and 0 or now
    is_unfinished = remove_instance(ended_ms, now, linger_ms)
    is_unfinished = end_lingers(now) or is_unfinished
    return is_unfinished
  end

  -- key -> when its expiry was renewed.
  local renewed, renewed_count = {}, 0

  local function renew_expiry(key, now)
    local renewed_ms = renewed[key]
    if renewed_ms and now >= renewed_ms and now - renewed_ms < RENEWAL_MS then return end
    if renewed_count >= 1000 then renewed, renewed_count = {}, 0 end
    renewed_count = renewed_count + 1
    renewed[key] = now
    redis.call('PEXPIRE', key, KEPT_MS)
  end

  -- Why a report is invalid.
  local function report_fault(args)
    if not is_token(args[1]) then return 'the name of the instance is invalid' end
    for i = 2, 4 do
      if not string.find(args[i] or '', '^%d+$') then return 'a number is missing or invalid' end
    end
    local mode = args[5]
    if mode ~= 'BEGIN' and mode ~= 'KEEP' and mode ~= 'END' then
      return 'use BEGIN, KEEP or END'
    end
    if (#args - 5) % 2 ~= 0 or #args - 5 > 2 * MAX_REPORTED then
      return 'give each of at most ' .. MAX_REPORTED .. ' users a number of streams'
    end
    for i = 6, #args, 2 do
      if not is_name(args[i]) or not string.find(args[i + 1], '^%d+$') then
        return 'a user or a number of streams is invalid'
      end
    end
  end

  -- sse_presence 1 <presence key> <instance> <number> <lease_ms> <linger_ms> BEGIN | KEEP | END
  --   [<user> <streams>]..
  -- Renews the lease of an instance, and reports how many streams its users have now. The numbers
  -- of reports increase: an earlier one that arrives late changes nothing. BEGIN: the instance may
  -- be new. END: it leaves with all its users. Also removes what other instances have left behind.
  -- Returns name/value pairs. The state is `ok`, or `unknown` if the instance has lost its lease
  -- and must report everything under a new name. `epoch`: if it is another one than before, reports
  -- may be lost. `more` is 1 if there is more to remove.
  local function report(_, args)
    local wrong = report_fault(args)
    if wrong then return reject_call('usage', wrong) end
    local instance, report_number, mode = args[1], tonumber(args[2]), args[5]
    local lease_ms, linger_ms = tonumber(args[3]), tonumber(args[4])
    local now = now_ms()
    ensure_adopted_slot(BROADCAST, now)
    local key = streams_key(instance)
    -- All keys, before the first write.
    call('HGET', USERS, '*')
    call('ZSCORE', LEAVING, '*')
    local last = number(call('HGET', key, LAST_REPORT))
    local lease_end = number(call('ZSCORE', LEASES, instance))
    local is_new = mode == 'BEGIN' and not lease_end
    local reply = { 'state', 'ok', 'epoch', epoch_text, 'more', '0' }
    if not is_new and (not lease_end or lease_end == 0 or not last) then
      reply[2] = 'unknown'
    elseif not last or report_number > last then
      redis.call('ZADD', LEASES, string.format('%d', now + lease_ms), instance)
      redis.call('HSET', key, LAST_REPORT, args[2])
      renew_expiry(key, now)
      for i = 6, #args, 2 do set_streams(key, args[i], args[i + 1], now, linger_ms) end
      if mode == 'END' then redis.call('ZADD', LEASES, 0, instance) end
    end
    renew_expiry(USERS, now)
    renew_expiry(LEASES, now)
    renew_expiry(LEAVING, now)
    if sweep(now, lease_ms, linger_ms) then reply[6] = '1' end
    return reply
  end

  -- The instances whose lease is valid.
  local function instances(now)
    return call('ZRANGEBYSCORE', LEASES, '(' .. string.format('%d', now), '+inf')
  end

  -- sse_presence_of 1 <presence key> <user>: `online` (1 or 0), and the number of `connections`. A
  -- user is online until the event `sse.offline`.
  local function of(_, args)
    local user = args[1] or ''
    if not is_name(user) then return reject_call('usage', 'the user is invalid') end
    local is_online = call('HGET', USERS, user) or call('ZSCORE', LEAVING, user)
    local connections = 0
    for _, instance in ipairs(instances(now_ms())) do
      connections = connections + number(call('HGET', streams_key(instance), user), 0)
    end
    return { 'online', is_online and '1' or '0', 'connections',
      string.format('%d', connections) }
  end

  -- sse_presence_ask 1 <presence key> <question> <topic>: asks all instances for the users of a
  -- topic. Returns the instances that will answer.
  local function ask(_, args)
    if not is_token(args[1]) or not is_name(args[2] or '') then
      return reject_call('usage', 'the question or the topic is invalid')
    end
    local all = instances(now_ms())
    redis.call('SPUBLISH', LIVE_BROADCAST, 'presence ' .. args[1] .. ' ' .. args[2])
    return all
  end

  -- sse_presence_answer 1 <presence key> <question> <instance> <answer>
  local function answer(_, args)
    if not is_token(args[1]) or not is_token(args[2]) or not args[3] then
      return reject_call('usage', 'the question, the instance or the answer is invalid')
    end
    identify()
    if not is_adopted_slot(BROADCAST) then refuse_unadopted() end
    local key = ANSWERS .. args[1]
    call('HSET', key, args[2], args[3])
    redis.call('PEXPIRE', key, ANSWERED_MS)
    return 1
  end

  return { report = report, of = of, ask = ask, answer = answer }
end)()
