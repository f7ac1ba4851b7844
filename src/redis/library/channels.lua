
-- Channels ----------------------------------------------------------------------------------------
-- Channels that were used recently: public name -> channel, and slot name -> channel. A channel has
-- its slot name, its topic, its log and its live channel; events.lua adds what it knows of the log.
local MAX_CHANNELS = 8192
local by_name, by_slot, channels = {}, {}, 0

local function forget_channels()
  by_name, by_slot, channels = {}, {}, 0
end

-- The channel of a public name; nil: the name is invalid. On a cluster, a client finds the server
-- of a broadcast only by the name with the hash tag; the second value then is a text about that.
local function channel_of(name)
  local channel = by_name[name]
  if channel then return channel end
  local slot, topic = parse_channel(name)
  if not slot then return nil end
  identify()
  if is_cluster and topic and name ~= slot then
    return nil, 'on a cluster, publish this broadcast with the key ' .. slot
  end
  if channels >= MAX_CHANNELS then forget_channels() end
  channels = channels + 1
  channel = by_slot[slot] or { slot = slot, topic = topic, log = PREFIX .. 'log:' .. slot,
    live = topic and LIVE_BROADCAST or LIVE .. slot }
  by_name[name], by_slot[slot] = channel, channel
  return channel
end
