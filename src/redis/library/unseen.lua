
-- Events that must be seen ------------------------------------------------------------------------
-- An event with UNSEEN waits in a hash of its user: position -> when it is due, and the event. A
-- gateway that hands it to a stream removes it (sse_seen). What is due is moved by the gateways:
-- they read it (sse_due), store it in the slot of the broadcasts (sse_undelivered), and remove it.
-- This memory knows which users have events that are due; what it loses, a gateway finds by the
-- names of the hashes.
local prepare_unseen, await_sight, unseen, due, seen, undelivered

do
  local UNSEEN = PREFIX .. 'unseen:'
  local UNDELIVERED = PREFIX .. 'undelivered:' .. BROADCAST
  local MAX_UNSEEN = 1000
  local MAX_UNDELIVERED = 100000
  -- A hash outlives the last of its events by this, in ms: one day.
  local UNSEEN_KEPT_MS = 86400000
  -- A user is named again this long after a gateway learned of what is due, in ms.
  local UNSEEN_RETRY_MS = 5000
  local MAX_DUE_USERS = 100
  -- What was handed over in time is reported up to this long after it, in ms.
  local REPORT_MS = 1500

  -- Second -> slot names of users; slot name -> its second; and the earliest second.
  local due_in, due_second, first_due = {}, {}, nil
  -- When this memory began. nil: not yet known.
  local unseen_since

  local function remember_due(slot, ms)
    local second = math.ceil((ms + REPORT_MS) / 1000)
    local before = due_second[slot]
    if before and before <= second then return end
    due_second[slot] = second
    due_in[second] = due_in[second] or {}
    due_in[second][slot] = true
    if not first_due or second < first_due then first_due = second end
  end

  -- Reads what `await_sight` needs. Returns a code and a text if it cannot be done.
  function prepare_unseen(channel)
    local count, wrong = attempt('HLEN', UNSEEN .. channel.slot)
    if wrong then return 'wrong-type', wrong end
    if count >= MAX_UNSEEN then
      return 'too-many-unseen', 'the user has ' .. count .. ' events that nobody has seen;'
        .. ' wait until their time is over'
    end
    -- The gateways look for events only if there was ever one; see `prepare_keep`.
    if count == 0 and not is_cluster then redis.call('HSET', node_key, 'unseen', '1') end
  end

  function await_sight(channel, position, o, kind, payload)
    local key = UNSEEN .. channel.slot
    local due = string.format('%d', o.unseen_ms)
    redis.call('HSET', key, position, due .. ' ' .. kind .. '\n' .. payload)
    redis.call('PEXPIREAT', key, string.format('%d', o.unseen_ms + UNSEEN_KEPT_MS), 'GT')
    redis.call('PEXPIREAT', key, string.format('%d', o.unseen_ms + UNSEEN_KEPT_MS), 'NX')
    remember_due(channel.slot, o.unseen_ms)
  end

  -- sse_unseen 0: since when this memory knows of events; whether there may be any (0 or 1); and
  -- the hashes of up to 100 users that have some that are due. Each is named again after 5 s, until
  -- they are removed.
  function unseen()
    local now = now_ms()
    unseen_since = unseen_since or string.format('%d', now)
    identify()
    local may_have_some = is_cluster or call('HGET', node_key, 'unseen')
    local reply = { unseen_since, may_have_some and '1' or '0' }
    local second = math.floor(now / 1000)
    while first_due and first_due <= second and #reply < 2 + MAX_DUE_USERS do
      local slots = due_in[first_due] or {}
      local slot = next(slots)
      if slot then
        slots[slot] = nil
        if due_second[slot] == first_due then
          due_second[slot] = nil
          remember_due(slot, now - REPORT_MS + UNSEEN_RETRY_MS)
          reply[#reply + 1] = UNSEEN .. slot
        end
      else
        due_in[first_due] = nil
        first_due = next(due_in) and first_due + 1 or nil
      end
    end
    return reply
  end

  -- sse_due 1 <hash of a user>: the events that are due, up to 100: position, type, payload of
  -- each.
  function due(keys)
    local now = now_ms()
    local slot = string.sub(keys[1], #UNSEEN + 1)
    ensure_adopted_slot(slot, now)
    local waiting = call('HGETALL', keys[1])
    local reply, earliest = {}, nil
    for i = 1, #waiting, 2 do
      local due_ms, kind, payload = string.match(waiting[i + 1], '^(%d+) ([^\n]*)\n(.*)$')
      if due_ms and tonumber(due_ms) + REPORT_MS <= now then
        if #reply < 300 then
          reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = waiting[i], kind, payload
        end
      elseif due_ms then
        earliest = math.min(earliest or math.huge, tonumber(due_ms))
      end
    end
    if #reply == 0 then due_second[slot] = nil end
    if earliest then remember_due(slot, earliest) end
    return reply
  end

  -- sse_seen 1 <hash of a user> <position>..: these events wait no longer.
  function seen(keys, args)
    ensure_adopted_slot(keys[1], now_ms())
    local removed = redis.call('HDEL', keys[1], unpack(args))
    if redis.call('EXISTS', keys[1]) == 0 then
      due_second[string.sub(keys[1], #UNSEEN + 1)] = nil
    end
    return removed
  end

  -- sse_undelivered 1 <the stream> <channel> <position> <type> <payload>:
  -- stores an event that nobody has seen, once.
  function undelivered(_, args)
    ensure_adopted_slot(BROADCAST, now_ms())
    local channel, position, kind, payload = unpack(args)
    local once = PREFIX .. 'dedupe:' .. BROADCAST .. ' undelivered ' .. channel .. ' ' .. position
    local before, wrong = attempt('GET', once)
    if wrong then error(reject_call('wrong-type', wrong)) end
    if before then return 'duplicate' end
    local _, other = attempt('XADD', UNDELIVERED, 'MAXLEN', '~', MAX_UNDELIVERED, '*',
      'channel', channel, 'id', position, 'type', kind, 'payload', payload)
    if other then error(reject_call('wrong-type', other)) end
    redis.call('SET', once, '1', 'PX', UNSEEN_KEPT_MS)
    return 'stored'
  end
end
