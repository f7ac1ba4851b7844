
-- Registration ------------------------------------------------------------------------------------

-- An error that a function raises is its reply, without the position in this text that Redis would
-- add.
local function replying(callback)
  return function(keys, args)
    local done, reply = pcall(callback, keys, args)
    if done or type(reply) == 'table' then return reply end
    -- Redis gives pcall only the text. A text that begins with a code is a reply; others are faults
    -- of this library.
    if string.find(reply, '^%u+ ') then return redis.error_reply(reply) end
    error(reply, 0)
  end
end

local function register(name, callback, ...)
  redis.register_function {
    function_name = '@F@_' .. name, callback = replying(callback), flags = { ... },
  }
end

register('publish', publish)
-- sse_publish_entry 1 <channel> <attempt> <type> <payload> and options: sse_publish for an entry of
-- an external source. Returns `stored` or `duplicate`. If the channel's rate refuses an event, it
-- refuses all later ones of the same attempt: time passes in a transaction, too, and the order
-- would be lost.
register('publish_entry', (function()
  local last, full
  return function(keys, args)
    local attempt_id = table.remove(args, 1)
    if last ~= attempt_id then last, full = attempt_id, {} end
    if full[keys[1]] then return full[keys[1]] end
    local reply, duplicate = publish(keys, args)
    if type(reply) == 'string' then return duplicate or 'stored' end
    if string.find(reply.err, 'SSE too-often:', 1, true) == 1 then full[keys[1]] = reply end
    return reply
  end
end)())
-- sse_lease_source 1 <lease key> <instance> <ttl_ms> [RELEASE]: takes, renews or releases the lease
-- of an external source. Returns 1 if the instance has it now.
register('lease_source', function(keys, args)
  local holder = call('GET', keys[1])
  if holder and holder ~= args[1] then return 0 end
  if args[3] ~= 'RELEASE' then
    redis.call('SET', keys[1], args[1], 'PX', args[2])
    return 1
  end
  if holder then redis.call('DEL', keys[1]) end
  return 0
end, 'allow-oom')
-- sse_unrecorded 1 <recorder key>: warns streams that events may be missing.
register('unrecorded', function()
  warn_unrecorded(now_ms())
  return 'done'
end, 'allow-oom')
register('record', record)
register('record_across', record_across)
register('progress', progress, 'allow-oom')
register('watermark', watermark, 'no-writes')
register('given', given, 'no-writes')
register('vouched', vouched_epochs, 'no-writes')
register('last', function(keys) return last_generated(keys[1]) end, 'no-writes')
-- allow-oom: a full Redis rejects events, and the publisher gets the error, but it must not end
-- streams and sessions.
register('adopt', adopt_call, 'allow-oom')
register('yield', yield, 'allow-oom')
register('save', save, 'allow-oom')
register('lease', lease, 'allow-oom')
register('mark', mark, 'allow-oom')
register('open', open, 'allow-oom')
register('resume', resume_only, 'no-writes')
register('renew', renew, 'allow-oom')
register('revoke', revoke, 'allow-oom')
register('unseen', unseen, 'no-writes')
register('due', due, 'allow-oom')
register('seen', seen, 'allow-oom')
register('undelivered', undelivered)
-- Without allow-oom: while Redis is full, no lease ends either.
register('presence', presence.report)
register('presence_of', presence.of, 'no-writes')
register('presence_ask', presence.ask, 'allow-oom')
register('presence_answer', presence.answer)
@ALIAS@
