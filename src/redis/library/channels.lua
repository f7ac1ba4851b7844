
-- Channels ----------------------------------------------------------------------------------------
-- Channels that were used recently: public name -> channel, and slot name -> channel. A channel has
-- its slot name, its topic, its log, its live channel and its rule; events.lua adds what it knows
-- of the log.
local by_name, by_slot, channels = {}, {}, 0

local function forget_channels()
  by_name, by_slot, channels = {}, {}, 0
end

-- The channel of a public name; nil: the name is invalid. On a cluster, a client finds the server
-- of a broadcast only by the name with the hash tag; the second value then is a text about that.
local channel_of
do
  local MAX_CHANNELS = 8192
  -- The channel rules, in their order. A rule has the name of a channel, or what precedes and
  -- follows the text that may be anything. The last one matches all channels.
  local RULES = {
@RULES@
  }

  -- Gives a channel the first rule that matches it. requires_keep, is_ephemeral and rate are also
  -- in the channel itself, if they are set. Only new channels are compared with the rules, so an
  -- event costs the same with and without rules.
  local function apply_rules(channel)
    local name = channel.topic and 'broadcast:' .. channel.topic
      or string.sub(channel.slot, #CHANNEL_PREFIX + 2, -2)
    for _, rule in ipairs(RULES) do
      local before, after = rule.before, rule.after
      if name == rule.name or (before and #name >= #before + #after
        and string.sub(name, 1, #before) == before
        and string.sub(name, #name - #after + 1) == after) then
        channel.rule, channel.rate = rule, rule.rate
        channel.requires_keep, channel.is_ephemeral = rule.requires_keep, rule.is_ephemeral
        return channel
      end
    end
  end

  function channel_of(name)
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
    channel = by_slot[slot] or apply_rules { slot = slot, topic = topic,
      log = PREFIX .. 'log:' .. slot, live = topic and LIVE_BROADCAST or LIVE .. slot }
    by_name[name], by_slot[slot] = channel, channel
    return channel
  end
end

-- For a channel with a rate: counts one event, of which there may be as many at once as in one
-- second. Returns a code and a text if there are too many.
local function rate_fault(channel, now)
  local rate = channel.rate
  local since_ms = math.max(0, now - (channel.counted_ms or 0))
  local left = math.min(rate, (channel.left or rate) + since_ms * rate / 1000)
  channel.counted_ms, channel.left = now, left
  if left < 1 then
    return 'too-often', 'the channel has a rate of ' .. string.format('%d', rate)
      .. ' events per second; publish it later, or raise the rate of its rule in channels'
  end
  channel.left = left - 1
end
