
-- The clock and the epoch -------------------------------------------------------------------------
-- Both are in the memory of this library, which the server process loses when it ends or when the
-- library is replaced. The node key outlives it and tells whether the history continues.

-- The current epoch as a number and as text. nil: this process is not adopted.
local epoch, epoch_text
-- The last position assigned, or a later one that a gateway has seen.
local clock_ms, clock_seq = 0, 0
-- The last position that this process assigned. Empty: none.
local last_assigned = ''

local function show_position(ms, seq)
  return show_id(ms, seq) .. '.' .. epoch_text
end

local function enter_epoch(number_of_epoch)
  epoch, epoch_text = number_of_epoch, base36(number_of_epoch)
end

local function advance(ms, seq)
  if is_after(ms, seq, clock_ms, clock_seq) then clock_ms, clock_seq = ms, seq end
end

-- The next position: the time, but always after the last one. The caller assigns it with `assign`.
local function next_id(now)
  if now > clock_ms then return now, 0 end
  return following(clock_ms, clock_seq)
end

local function assign(ms, seq)
  clock_ms, clock_seq, is_unverified = ms, seq, true
  last_assigned = show_position(ms, seq)
  return last_assigned
end

-- The node key of the server of {broadcast}, and of any server that is not in a cluster.
local BROADCAST_NODE = PREFIX .. 'node:' .. BROADCAST
-- This server's node key. On a cluster it is in one of the server's own slots, which a gateway
-- chooses: only functions that get its name may access it.
local node_key = BROADCAST_NODE
-- The first ones are all that a watermark needs.
local NODE_FIELDS = { 'run_id', 'replid', 'epoch', 'start', 'previous', 'raised_ms', 'shorter_ms',
  'replicated', 'continues', 'kept', 'clock', 'retention_ms', 'confirmed', 'follows', 'slots',
  'myid', 'yielded', 'lost' }
local WATERMARK_FIELDS = 10

local function read_node(key, fields)
  local values = call('HMGET', key, unpack(NODE_FIELDS, 1, fields))
  local node = {}
  for i = 1, #values do node[NODE_FIELDS[i]] = values[i] or nil end
  return node
end

-- Changes fields of the node key, and of what was read of it.
local function write_node(node, fields)
  local words = {}
  for name, value in pairs(fields) do
    node[name] = value
    words[#words + 1], words[#words + 2] = name, value
  end
  redis.call('HSET', node_key, unpack(words))
end

-- Events up to now are kept for the former, shorter retention: a longer one restores none of them.
-- With other channel rules, any channel may have had the shortest retention, and has the longest.
local function raise_retention(node, now)
  if node.retention_ms == RETENTIONS then return end
  local before = number(string.match(node.retention_ms or '', '^%d+'))
  if before and before < LONGEST_RETENTION_MS then
    local raised_ms = math.max(now, clock_ms)
    local earlier_ms, shorter_ms = number(node.raised_ms), number(node.shorter_ms)
    -- An earlier raise counts as long as it explains more.
    if earlier_ms and shorter_ms and raised_ms <= earlier_ms + before then
      before = math.min(before, shorter_ms)
    end
    write_node(node, { raised_ms = string.format('%d', raised_ms),
      shorter_ms = string.format('%d', before) })
  end
  write_node(node, { retention_ms = RETENTIONS })
end
