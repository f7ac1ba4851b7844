
-- The slots of a cluster --------------------------------------------------------------------------
-- On a cluster a server is adopted for each of its slots: another server may have written to the
-- logs of a slot that this one gained. The functions know their slots from adoption, because
-- reading them costs too much for each event.

-- A watermark reads the server's own slots at most this often.
local SLOTS_MS = 500
-- Maximum number of words in one command to Redis.
local MAX_WORDS = 1000
-- The server's own slots, `0-5460 9000`, without those that it is importing.
local own_slots
local slots_read_ms = 0
-- The same at adoption, and as a set. A new table with each adoption.
local adopted_text, adopted_slots = '', {}
-- The epochs in which a slot's former servers lived until it moved here, of which nothing was lost:
-- slot -> list. Also the fields `slot:<number>` of the node key.
local vouched = {}

-- Calls `visit` with each slot of a text like `0-5460 9000` or `0-5460,9000`.
local function each_slot(text, visit)
  for range in string.gmatch(text or '', '[^ ,]+') do
    local first, last = string.match(range, '^(%d+)-?(%d*)$')
    first = tonumber(first)
    last = tonumber(last) or first
    if first and last < 16384 then
      for slot = first, last do visit(slot) end
    end
  end
end

local function slot_set(text)
  local set = {}
  each_slot(text, function(slot) set[slot] = true end)
  return set
end

-- A slot that was away, even for a moment, must be adopted again: another server may have written
-- to its logs.
local function give_up_slots()
  local own, kept, is_lost = slot_set(own_slots), {}, false
  for slot in pairs(adopted_slots) do
    if own[slot] then kept[slot] = true else is_lost = true end
  end
  if is_lost then
    adopted_text, adopted_slots = '', kept
    forget_channels()
  end
end

local function read_slots(now, max_age_ms)
  if own_slots and now >= slots_read_ms and now - slots_read_ms < max_age_ms then
    return own_slots
  end
  local nodes = redis.call('CLUSTER', 'NODES')
  local from = string.find(nodes, ' myself,', 1, true)
  local to = from and string.find(nodes, '\n', from, true)
  -- Flags, primary, ping, pong, configuration epoch and state of the link precede the slots.
  local ranges = from and string.match(string.sub(nodes, from, to and to - 1),
    '^ %S+ %S+ %S+ %S+ %S+ %S+(.*)$') or ''
  local own = {}
  for range in string.gmatch(ranges, '%S+') do
    if string.sub(range, 1, 1) ~= '[' then own[#own + 1] = range end
  end
  own_slots, slots_read_ms = table.concat(own, ' '), now
  if own_slots ~= adopted_text then give_up_slots() end
  return own_slots
end

-- Whether this server was adopted for the slot of a name with a hash tag.
local function is_adopted_slot(name)
  return not is_cluster or adopted_slots[redis.call('CLUSTER', 'KEYSLOT', name)] == true
end

-- The same for a channel, which remembers the answer.
local function is_adopted_channel(channel)
  if not is_cluster or channel.adopted == adopted_slots then return true end
  if not is_adopted_slot(channel.slot) then return false end
  channel.adopted = adopted_slots
  return true
end

-- HSET or HDEL of many words.
local function in_parts(command, words)
  for from = 1, #words, MAX_WORDS do
    redis.call(command, node_key, unpack(words, from, math.min(from + MAX_WORDS - 1, #words)))
  end
end

-- The vouchers in the node key, after the library's memory was lost.
local function load_vouchers()
  vouched = {}
  local fields = call('HGETALL', node_key)
  for i = 1, #fields, 2 do
    local slot = string.match(fields[i], '^slot:(%d+)$')
    if slot then vouched[tonumber(slot)] = fields[i + 1] end
  end
end

local function forget_vouchers()
  local words = {}
  for slot in pairs(vouched) do words[#words + 1] = 'slot:' .. slot end
  vouched = {}
  in_parts('HDEL', words)
end

-- The server's own slots among those that a gateway knows, as text.
local function known_slots(known_text)
  local own, known, both, is_all = slot_set(own_slots), slot_set(known_text), {}, true
  for slot in pairs(own) do is_all = is_all and known[slot] ~= nil end
  if is_all then return own_slots end
  for slot = 0, 16383 do
    if own[slot] and known[slot] then both[#both + 1] = string.format('%d', slot) end
  end
  return table.concat(both, ' ')
end

-- Adopts these slots of the server; `before`: those at the last adoption. `vouchers`: slot -> list
-- of epochs, for slots that were gained; others that were gained, and those that are gone, have
-- none any more.
local function adopt_slots(node, slots, before, vouchers)
  local now = slot_set(slots)
  local gone, new = {}, {}
  for slot in pairs(vouched) do
    if not now[slot] or (not before[slot] and not vouchers[slot]) then
      gone[#gone + 1] = 'slot:' .. slot
      vouched[slot] = nil
    end
  end
  for slot, epochs in pairs(vouchers) do
    if now[slot] and not before[slot] then
      new[#new + 1], new[#new + 2] = 'slot:' .. slot, epochs
      vouched[slot] = epochs
    end
  end
  in_parts('HDEL', gone)
  in_parts('HSET', new)
  -- Another server may have written to the logs of a slot that is new here.
  forget_channels()
  adopted_text, adopted_slots = slots, now
  write_node(node, { slots = slots })
end

-- Whether there are slots that were not adopted before.
local function has_gained(slots, before)
  local gained = false
  each_slot(slots, function(slot) gained = gained or not before[slot] end)
  return gained
end
