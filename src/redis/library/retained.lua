
-- Retained values ---------------------------------------------------------------------------------
-- The current value of each key of a channel: a hash of the channel, and for broadcasts a sorted
-- set of the topics that have one, by the time when their hash expires. The hash also has an empty
-- field, so that it outlives its last value: clients may have to discard that.
local prepare_keep, keep

do
  local MAX_KEPT = @MAX_KEPT@
  local KEPT_RETENTION_MS = @KEPT_RETENTION_MS@
  -- 1 % of the retention, at most an hour.
  local KEPT_SLACK_MS = @KEPT_SLACK_MS@
  local KEPT_TOPICS = PREFIX .. 'kept:' .. BROADCAST

  -- Reads and lists what `keep` needs. Returns a code and a text if it cannot be done.
  function prepare_keep(channel, o, now)
    local kept = PREFIX .. 'kept:' .. channel.slot
    local count, wrong = attempt('HLEN', kept)
    if wrong then return 'wrong-type', wrong end
    if o.keep and count > MAX_KEPT and redis.call('HEXISTS', kept, o.keep) == 0 then
      return 'too-many-kept', 'the channel has ' .. count - 1 .. ' retained values,'
        .. ' history.max_kept is ' .. MAX_KEPT .. '; FORGET some, or use fewer keys'
    end
    channel.kept, channel.is_kept_new = kept, count == 0
    -- It neither adds a value nor renews the expiry of nothing.
    if o.forget and count == 0 then return end
    -- A new hash has no expiry.
    if count > 0 and (channel.kept_until_ms or 0) >= now + KEPT_RETENTION_MS then return end
    channel.kept_until_ms = nil
    if channel.topic then
      local until_ms = now + KEPT_RETENTION_MS + KEPT_SLACK_MS
      local _, other = attempt('ZADD', KEPT_TOPICS, until_ms, channel.topic)
      if other then return 'wrong-type', other end
      redis.call('ZREMRANGEBYSCORE', KEPT_TOPICS, '-inf', '(' .. string.format('%d', now))
    end
    -- Streams look for retained values only if there was ever one. On a cluster the node key is in
    -- another slot, and they always look.
    had_values = true
    if count == 0 and not is_cluster then redis.call('HSET', node_key, 'kept', '1') end
  end

  -- Stores or deletes the value of an event that was appended.
  function keep(channel, o, now, position, retry, kind, payload)
    local kept = channel.kept
    if o.forget then
      redis.call('HDEL', kept, o.forget)
    else
      if channel.is_kept_new then redis.call('HSET', kept, '', '') end
      redis.call('HSET', kept, o.keep, position .. ' ' .. retry .. (o.tags and 'g ' or ' ') .. kind
        .. '\n' .. (o.tags and o.tags .. '\n' or '') .. payload)
    end
    if not channel.kept_until_ms then
      channel.kept_until_ms = now + KEPT_RETENTION_MS + KEPT_SLACK_MS
      redis.call('PEXPIREAT', kept, string.format('%d', channel.kept_until_ms))
    end
  end
end
