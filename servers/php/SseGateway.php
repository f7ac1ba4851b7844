<?php

declare(strict_types=1);

namespace SseGateway;

/**
 * Why a ticket was not issued or an event was not published.
 *
 * `getCode()` is a short name of the problem that does not change, for example `too-large`.
 */
final class SseError extends \RuntimeException
{
    /** @param bool $retriable whether the same call may succeed later, and cannot publish twice */
    public function __construct(
        string $code,
        string $message,
        public readonly bool $retriable = false,
        ?\Throwable $previous = null,
    ) {
        parent::__construct($message, 0, $previous);
        $this->code = $code; // a text, as in \PDOException
    }
}

/** A payload that is published as it is, for example JSON that you have as a text. */
final class Raw
{
    public function __construct(public readonly string $text)
    {
    }
}

/** An event that its user was not handed in time. */
final class Undelivered
{
    /**
     * @param string $entry the entry's id, for `acknowledge`
     * @param string $payload as published: usually JSON
     */
    public function __construct(
        public readonly string $entry,
        public readonly string $channel,
        public readonly string $id,
        public readonly string $type,
        public readonly string $payload,
    ) {
    }
}

/** Publishes events to sse-gateway and issues tickets for it. */
final class SseGateway
{
    private const NAME = '/\A[!-~]{1,256}\z/';
    private const NOT_IN_NAME = ',*?[]{}\\';
    private const NAME_RULE =
        '1 to 256 printable ASCII characters without space, comma and * ? [ ] { } \\';
    private const TAG_NAME = '/\A[A-Za-z0-9_.-]{1,64}\z/';
    private const TAG_VALUE = '/\A[^\s\p{Cc}]+\z/u';

    /** Errors of the gateway's function that end by themselves. Nothing was published. */
    private const TEMPORARY_CODES = ['not-adopted', 'too-often'];

    /** Errors of Redis that end by themselves. The command was not executed. */
    private const TEMPORARY =
        '/^(MOVED|ASK|TRYAGAIN|CLUSTERDOWN|LOADING|MASTERDOWN|NOREPLICAS|READONLY|BUSY) /';

    private const FIRST_PAUSE_MS = 50;
    private const MAX_PAUSE_MS = 500;

    /**
     * @param \Redis|\RedisCluster|null $redis a client of the extension `redis`, for publishing
     * @param string|null $secret `tickets.secret` of the gateway, 32 bytes or more
     * @param string $audience `tickets.audience` of the gateway
     * @param string|null $issuer `tickets.issuer` of the gateway
     * @param string|null $keyId the `kid` of the secret, if the gateway has several keys
     * @param int $maxTtl `tickets.max_ttl` of the gateway, in seconds
     * @param string $keyPrefix `redis.key_prefix` of the gateway
     * @param string $channelPrefix `redis.channel_prefix` of the gateway
     * @param float $retryFor how long temporary errors are retried, in seconds; 0: never
     */
    public function __construct(
        private readonly \Redis|\RedisCluster|null $redis = null,
        #[\SensitiveParameter] private readonly ?string $secret = null,
        private readonly string $audience = 'sse-gateway',
        private readonly ?string $issuer = null,
        private readonly ?string $keyId = null,
        private readonly int $maxTtl = 60,
        private readonly string $keyPrefix = 'sse:',
        private readonly string $channelPrefix = '',
        private readonly float $retryFor = 3.0,
    ) {
        if ($secret !== null && strlen($secret) < 32) {
            throw new SseError('bad-secret', 'secret must have at least 32 bytes');
        }
    }

    /**
     * Signs a ticket (a JWT, HS256) for a user that you have authenticated. It is for one
     * connection.
     *
     * @param list<string>|null $topics names, `prefix*` or `*`; null: `tickets.default_topics`
     * @param array<string, list<string>>|null $filter only events whose tags have one of these
     *     values; events without the tag pass
     * @param bool $presence whether the ticket also gets the events of presence
     * @param int $ttl within which time the first connection must be made, in seconds
     * @param \DateTimeInterface|int|null $sessionExpires when the stream ends: a date, or seconds
     *     since 1970
     */
    public function ticket(
        string $user,
        ?array $topics = null,
        ?array $filter = null,
        bool $presence = false,
        int $ttl = 30,
        \DateTimeInterface|int|null $sessionExpires = null,
    ): string {
        if ($this->secret === null) {
            throw new SseError('bad-secret', 'the argument secret is missing');
        }
        self::checkUser($user);
        self::checkTopics($topics ?? []);
        self::checkFilter($filter ?? ['any' => ['value']]);
        if ($ttl < 1 || $ttl > $this->maxTtl) {
            $rule = "ttl must be a number of seconds from 1 to {$this->maxTtl} (got $ttl)";
            throw new SseError('bad-ttl', $rule);
        }
        $now = time();
        $end = $sessionExpires instanceof \DateTimeInterface
            ? $sessionExpires->getTimestamp() : $sessionExpires;
        // A number of milliseconds would be a date in a distant future.
        if ($end !== null && ($end <= $now || $end >= 100_000_000_000)) {
            throw new SseError('bad-session-expires', 'sessionExpires must be a date in the future,'
                . " or its seconds since 1970 (got $end)");
        }
        $claims = [
            'sub' => $user, 'aud' => $this->audience, 'iss' => $this->issuer, 'iat' => $now,
            'exp' => $now + $ttl, 'jti' => bin2hex(random_bytes(16)), 'topics' => $topics,
            'filter' => $filter, 'presence' => $presence ?: null, 'session_exp' => $end,
        ];
        $body = self::encode(['alg' => 'HS256', 'typ' => 'JWT', 'kid' => $this->keyId])
            . '.' . self::encode($claims);
        $ticket = $body . '.' . self::base64(hash_hmac('sha256', $body, $this->secret, true));
        if (strlen($ticket) > 8192) {
            throw new SseError('ticket-too-long', 'the ticket is longer than 8 KiB; use fewer'
                . ' topics, or patterns such as team-*');
        }
        return $ticket;
    }

    /**
     * Publishes an event on `user:<id>:events` or `broadcast:<topic>`.
     *
     * @param mixed $payload any value that `json_encode` takes, or `Raw`
     * @param string|null $key idempotency key: a second event with it is dropped, and has the id of
     *     the first one
     * @param int|null $retry the event's `retry:`, in ms
     * @param string|null $keep keeps the event as the channel's current value for this key
     * @param string|null $forget publishes the event, and removes the value that was kept
     * @param bool $ephemeral delivers the event live only: it is not stored and has no id
     * @param array<string, string> $tags labels for the `filter` of tickets
     * @param string|null $unseen reports the event as undelivered if the user does not get it
     *     within this time, such as `30s`
     * @param string|null $traceparent the publisher's trace (W3C trace context); an empty text is no
     *     trace
     * @return string the event's id; empty for an ephemeral event
     */
    public function publish(
        string $channel,
        string $type,
        mixed $payload,
        ?string $key = null,
        ?int $retry = null,
        ?string $keep = null,
        ?string $forget = null,
        bool $ephemeral = false,
        array $tags = [],
        ?string $unseen = null,
        ?string $traceparent = null,
    ): string {
        $args = [$this->channelKey($channel), $type, self::serialize($payload)];
        $options = [
            'KEY' => $key, 'RETRY' => $retry, 'KEEP' => $keep, 'FORGET' => $forget,
            'UNSEEN' => $unseen, 'TRACE' => $traceparent === '' ? null : $traceparent,
        ];
        foreach ($options as $name => $value) {
            if ($value !== null) {
                array_push($args, $name, (string) $value);
            }
        }
        if ($ephemeral) {
            $args[] = 'EPHEMERAL';
        }
        if ($tags !== []) {
            $args[] = 'TAGS';
            foreach ($tags as $name => $value) {
                $args[] = "$name=$value";
            }
        }
        $command = ['FCALL', $this->functionName(), '1', ...$args];
        return $this->retry($key !== null, fn () => (string) $this->command($args[0], $command));
    }

    /**
     * Publishes an event for all streams of a user. `$options`: the named arguments of `publish`
     * from `key` on.
     */
    public function publishToUser(
        string $user,
        string $type,
        mixed $payload,
        mixed ...$options,
    ): string {
        self::checkUser($user);
        return $this->publish("user:$user:events", $type, $payload, ...$options);
    }

    /**
     * Publishes an event for all streams whose ticket has the topic. `$options`: the named
     * arguments of `publish` from `key` on.
     */
    public function publishToBroadcast(
        string $topic,
        string $type,
        mixed $payload,
        mixed ...$options,
    ): string {
        return $this->publish("broadcast:$topic", $type, $payload, ...$options);
    }

    /**
     * Reads up to `$count` undelivered events as a consumer of a group: first those that another
     * consumer read `$idle` seconds ago and did not acknowledge, then new ones. Does not wait for
     * events.
     *
     * @return list<Undelivered>
     */
    public function undelivered(
        string $group,
        string $consumer,
        int $count = 100,
        float $idle = 60.0,
    ): array {
        $stream = $this->stream();
        $reader = [$stream, $group, $consumer];
        $claim = [...$reader, (string) (int) ($idle * 1000), '0', 'COUNT', (string) $count];
        $read = ['GROUP', $group, $consumer, 'COUNT', (string) $count, 'STREAMS', $stream, '>'];
        return $this->retry(true, function () use ($stream, $group, $claim, $read): array {
            $this->createGroup($stream, $group);
            $entries = $this->command($stream, ['XAUTOCLAIM', ...$claim])[1];
            if ($entries === []) {
                $entries = $this->command($stream, ['XREADGROUP', ...$read])[0][1] ?? [];
            }
            return array_map(self::event(...), $entries);
        });
    }

    /** Acknowledges undelivered events: no consumer of the group gets them again. */
    public function acknowledge(string $group, Undelivered ...$events): void
    {
        if ($events === []) {
            return;
        }
        $entries = array_map(static fn (Undelivered $event) => $event->entry, $events);
        $command = ['XACK', $this->stream(), $group, ...array_values($entries)];
        $this->retry(true, fn () => $this->command($this->stream(), $command));
    }

    private function createGroup(string $stream, string $group): void
    {
        try {
            $this->command($stream, ['XGROUP', 'CREATE', $stream, $group, '0', 'MKSTREAM']);
        } catch (\RedisException | \RedisClusterException $error) {
            if (!str_starts_with($error->getMessage(), 'BUSYGROUP')) {
                throw $error;
            }
        }
    }

    /** @param array{string, list<string>} $entry its id, and names and values in turn */
    private static function event(array $entry): Undelivered
    {
        [$id, $list] = $entry;
        $fields = array_column(array_chunk($list, 2), 1, 0);
        return new Undelivered(
            $id, $fields['channel'], $fields['id'], $fields['type'], $fields['payload'],
        );
    }

    private function stream(): string
    {
        return "{$this->keyPrefix}undelivered:{{$this->channelPrefix}broadcast}";
    }

    /**
     * Retries errors that end by themselves.
     *
     * @template Result
     * @param bool $isRepeatable also those that leave it unknown whether the call was executed
     * @param \Closure(): Result $call
     * @return Result
     */
    private function retry(bool $isRepeatable, \Closure $call): mixed
    {
        $end = hrtime(true) + $this->retryFor * 1e9;
        for ($delay = self::FIRST_PAUSE_MS;; $delay = min(2 * $delay, self::MAX_PAUSE_MS)) {
            try {
                return $call();
            } catch (\RedisException | \RedisClusterException $cause) {
                $error = self::error($cause, $isRepeatable);
            }
            // Clients that failed together must not retry together.
            $wait = random_int(intdiv($delay, 2), $delay) * 1_000_000;
            if (!$error->retriable || hrtime(true) + $wait > $end) {
                throw $error;
            }
            usleep(intdiv($wait, 1000));
        }
    }

    /**
     * @param string $key selects the node of a cluster
     * @param list<string> $command
     */
    private function command(string $key, array $command): mixed
    {
        if ($this->redis === null) {
            throw new SseError('no-redis', 'the argument redis is missing');
        }
        $this->redis->clearLastError();
        $reply = $this->redis instanceof \RedisCluster
            ? $this->redis->rawCommand($key, ...$command)
            : $this->redis->rawCommand(...$command);
        // The extension returns false for most errors of Redis, and for no reply.
        $reason = $reply === false ? $this->redis->getLastError() : null;
        if ($reason !== null) {
            throw new \RedisException($reason);
        }
        return $reply;
    }

    private static function error(\Throwable $cause, bool $isRepeatable): SseError
    {
        $text = $cause->getMessage();
        if (preg_match('/\ASSE ([a-z0-9-]+): (.*)\z/s', $text, $match) === 1) {
            [, $code, $reason] = $match;
            $isTemporary = in_array($code, self::TEMPORARY_CODES, true);
            return new SseError($code, $reason, $isTemporary, $cause);
        }
        if (str_contains($text, 'Function not found')) {
            $reason = 'the function of the gateway is missing: no gateway has connected to this'
                . ' Redis server yet, or keyPrefix is not its redis.key_prefix';
            return new SseError('not-loaded', $reason, true, $cause);
        }
        if (preg_match(self::TEMPORARY, $text) === 1) {
            return new SseError('redis-away', $text, true, $cause);
        }
        if (preg_match('/\A[A-Z]{2,} /', $text) === 1) {
            return new SseError('redis-error', $text, false, $cause);
        }
        return new SseError('redis-away', "Redis has not replied: $text", $isRepeatable, $cause);
    }

    /** The gateway names its functions after its key prefix: `shop-1:` becomes `shop_1`. */
    private function functionName(): string
    {
        $trimmed = preg_replace('/^[^a-zA-Z0-9]+|[^a-zA-Z0-9]+$/D', '', $this->keyPrefix);
        $name = preg_replace('/[^a-zA-Z0-9]/', '_', $trimmed);
        return ($name === '' ? 'sse' : $name) . '_publish';
    }

    /**
     * The key of a channel in Redis. A broadcast's key names the slot that all broadcasts share,
     * which a cluster requires.
     */
    private function channelKey(string $channel): string
    {
        $user = preg_match('/\Auser:(.*):events\z/s', $channel, $match) === 1 ? $match[1] : '';
        if (self::isName($user)) {
            return $this->channelPrefix . $channel;
        }
        $form = '/\A(?:broadcast|\{broadcast\}):(.*)\z/s';
        $topic = preg_match($form, $channel, $match) === 1 ? $match[1] : '';
        if (self::isName($topic)) {
            return "{{$this->channelPrefix}broadcast}:$topic";
        }
        throw new SseError('bad-channel', 'the channel must be user:<id>:events or'
            . ' broadcast:<topic>, with ' . self::NAME_RULE);
    }

    private static function isName(mixed $value): bool
    {
        return is_string($value) && preg_match(self::NAME, $value) === 1
            && strpbrk($value, self::NOT_IN_NAME) === false;
    }

    private static function checkUser(string $user): void
    {
        if (!self::isName($user)) {
            throw new SseError('bad-user', 'user must have ' . self::NAME_RULE);
        }
    }

    /** @param array<mixed> $topics */
    private static function checkTopics(array $topics): void
    {
        $isPattern = static fn (mixed $topic): bool => is_string($topic)
            && ($topic === '*' || self::isName(preg_replace('/\*\z/', '', $topic)));
        $valid = array_filter($topics, $isPattern);
        if (!array_is_list($topics) || count($topics) > 256 || count($valid) < count($topics)) {
            throw new SseError('bad-topics', 'topics must be a list of at most 256 names, `prefix*`'
                . ' or `*`; a name has ' . self::NAME_RULE);
        }
    }

    /** @param array<mixed> $filter */
    private static function checkFilter(array $filter): void
    {
        $isValue = static fn (mixed $value): bool => is_string($value)
            && strlen($value) <= 256 && preg_match(self::TAG_VALUE, $value) === 1;
        $isTag = static fn (mixed $values, int|string $name): bool =>
            preg_match(self::TAG_NAME, (string) $name) === 1
            && is_array($values) && array_is_list($values)
            && count($values) >= 1 && count($values) <= 64
            && count(array_filter($values, $isValue)) === count($values);
        $valid = array_filter($filter, $isTag, ARRAY_FILTER_USE_BOTH);
        if (count($filter) < 1 || count($filter) > 8 || count($valid) < count($filter)) {
            throw new SseError('bad-filter', 'filter must have 1 to 8 tags, each with a list of 1'
                . " to 64 values without spaces, such as ['region' => ['eu']]");
        }
    }

    private static function serialize(mixed $payload): string
    {
        if ($payload instanceof Raw) {
            return $payload->text;
        }
        $flags = JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES
            | JSON_PRESERVE_ZERO_FRACTION;
        try {
            return json_encode($payload, $flags);
        } catch (\JsonException $cause) {
            $reason = "the payload is not JSON: {$cause->getMessage()}";
            throw new SseError('bad-payload', $reason, false, $cause);
        }
    }

    /** @param array<string, mixed> $members those that are null are left out */
    private static function encode(array $members): string
    {
        $present = array_filter($members, static fn (mixed $value): bool => $value !== null);
        // The claim `filter` is an object also if all names of tags are numbers.
        if (isset($present['filter'])) {
            $present['filter'] = (object) $present['filter'];
        }
        return self::base64(json_encode($present, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE));
    }

    private static function base64(string $data): string
    {
        return rtrim(strtr(base64_encode($data), '+/', '-_'), '=');
    }
}
