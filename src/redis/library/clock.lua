
-- The clock and the epoch -------------------------------------------------------------------------
-- Both are in the memory of this library, which the server process loses when it ends or when the
-- library is replaced. The node key outlives it and tells whether the history continues.

-- The current epoch as a number and as text. nil: this process is not adopted.
local epoch, epoch_text
-- The last position assigned, or a later one that a gateway has seen.
local clock_ms, clock_seq = 0, 0

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
  clock_ms, clock_seq = ms, seq
  return show_position(ms, seq)
end

local NODE = PREFIX .. 'node:' .. BROADCAST
local NODE_FIELDS = { 'run_id', 'replid', 'epoch', 'clock', 'start', 'previous', 'retention_ms',
  'raised_ms', 'shorter_ms', 'replicated', 'confirmed', 'follows', 'continues' }

local function read_node()
  local values = call('HMGET', NODE, unpack(NODE_FIELDS))
  local node = {}
  for i, name in ipairs(NODE_FIELDS) do node[name] = values[i] or nil end
  return node
end

-- Events up to now are kept for the former, shorter retention: a longer one restores none of them.
local function raise_retention(node, now)
  local before = number(node.retention_ms)
  if before == RETENTION_MS then return end
  if before and before < RETENTION_MS then
    local raised_ms = math.max(now, clock_ms)
    local earlier_ms, shorter_ms = number(node.raised_ms), number(node.shorter_ms)
    -- An earlier raise counts as long as it explains more.
    if earlier_ms and shorter_ms and raised_ms <= earlier_ms + before then
      before = math.min(before, shorter_ms)
    end
    redis.call('HSET', NODE, 'raised_ms', string.format('%d', raised_ms),
      'shorter_ms', string.format('%d', before))
  end
  redis.call('HSET', NODE, 'retention_ms', RETENTION_MS)
end
