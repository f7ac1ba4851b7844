<?php

// Tests of SseGateway.php with a gateway and Redis; run by `make test-servers`.

declare(strict_types=1);

require __DIR__ . '/../SseGateway.php';

use SseGateway\{Raw, SseError, SseGateway};

const ID = '/\A\d+-\d+\.[0-9a-z]+\z/';
define('SECRET', getenv('TICKET_SECRET'));

set_error_handler(static function (int $level, string $text): never {
    throw new ErrorException($text);
});

function same(mixed $expected, mixed $got): void
{
    if ($expected !== $got) {
        $texts = array_map(static fn ($value) => var_export($value, true), [$expected, $got]);
        throw new Exception("expected $texts[0]\ngot $texts[1]");
    }
}

function refused(string $code, bool $retriable, Closure $call): void
{
    try {
        $call();
    } catch (SseError $error) {
        same([$code, $retriable], [$error->getCode(), $error->retriable]);
        return;
    }
    throw new Exception("no error $code");
}

function connect(string $variable): Redis
{
    ['host' => $host, 'port' => $port] = parse_url(getenv($variable));
    $redis = new Redis();
    $redis->connect($host, $port);
    return $redis;
}

/** A gateway on a server, with named arguments. */
function gateway(string $variable = 'SSE_TEST_REDIS', mixed ...$settings): SseGateway
{
    return new SseGateway(...['redis' => connect($variable), 'secret' => SECRET, ...$settings]);
}

function user(): string
{
    return 'php-' . bin2hex(random_bytes(8));
}

/** Reads the stream of a ticket from now on. */
final class Stream
{
    /** @var resource */
    private mixed $lines;
    public readonly array $connected;

    public function __construct(string $variable, string $ticket)
    {
        // The http wrapper of PHP waits until its buffer is full.
        ['host' => $host, 'port' => $port] = parse_url(getenv($variable));
        $this->lines = stream_socket_client("tcp://$host:$port");
        stream_set_timeout($this->lines, 30);
        fwrite($this->lines, "GET /events?ticket=$ticket HTTP/1.0\r\nhost: test\r\n\r\n");
        same(true, str_contains(fgets($this->lines), ' 200 '));
        while (fgets($this->lines) !== "\r\n") {
            // a header
        }
        $this->connected = json_decode($this->next()['data'], true);
    }

    /** @return array<string, string> the lines of the next event */
    public function next(): array
    {
        do {
            $event = [];
            while (($line = fgets($this->lines)) !== "\n") {
                if ($line === false) {
                    throw new Exception('the stream ended');
                }
                [$name, $value] = explode(': ', rtrim($line, "\n"), 2) + [1 => ''];
                $event[$name] = $value;
            }
        } while (in_array($event['event'] ?? '', ['', 'sse.heartbeat'], true));
        return $event;
    }

    public function close(): void
    {
        fclose($this->lines);
    }
}

function execute(string $command): void
{
    exec("$command 2>&1", $lines, $status);
    if ($status !== 0) {
        throw new Exception("$command: " . implode("\n", $lines));
    }
}

/** Packs the package and installs it in a project that has no other copy of it. */
function installWithComposer(string $project, string $dependencies): void
{
    putenv('COMPOSER_ALLOW_SUPERUSER=1');
    putenv("COMPOSER_HOME=$project/.composer");
    $composer = fn (string $folder, string $command) =>
        execute("composer --no-interaction --working-dir=$folder $command");
    unlink("$project/SseGateway.php");
    mkdir("$project/package");
    $composer(dirname(__DIR__), "archive --format=tar --dir=$project --file=package");
    execute("tar -xf $project/package.tar -C $project/package");
    $settings = json_decode($dependencies, true, flags: JSON_THROW_ON_ERROR);
    same('../servers/php', $settings['repositories'][0]['url']);
    $settings['repositories'] = [
        ['type' => 'path', 'url' => 'package'], ['packagist.org' => false],
    ];
    file_put_contents("$project/composer.json", json_encode($settings));
    $composer($project, 'install');
}

$tests = [];

$tests['events arrive as published'] = static function (): void {
    [$sse, $user] = [gateway(), user()];
    $ticket = $sse->ticket($user, topics: ['news'], filter: ['region' => ['eu']]);
    $stream = new Stream('SSE_TEST_GATEWAY', $ticket);
    same([$user, ['news']], [$stream->connected['user'], $stream->connected['topics']]);

    $id = $sse->publishToUser($user, 'order-completed', ['total' => 1.0, 'ü' => '/'], key: $user);
    same(1, preg_match(ID, $id));
    $data = '{"total":1.0,"ü":"/"}';
    same(['id' => $id, 'event' => 'order-completed', 'data' => $data], $stream->next());
    same($id, $sse->publishToUser($user, 'order-completed', 2, key: $user));

    $id = $sse->publish("user:$user:events", 'text', new Raw('not "JSON"'), retry: 1234);
    $event = $stream->next();
    same([$id, '1234', 'not "JSON"'], [$event['id'], $event['retry'], $event['data']]);

    $sse->publishToBroadcast('news', 'filtered', 1, tags: ['region' => 'us']);
    $sse->publishToBroadcast('other', 'not-permitted', 1);
    $tags = ['region' => 'eu', 'team' => 'x=y'];
    $id = $sse->publishToBroadcast('news', 'headline', ['a'], tags: $tags);
    same(['id' => $id, 'event' => 'headline', 'data' => '["a"]'], $stream->next());

    same('', $sse->publishToUser($user, 'typing', null, ephemeral: true));
    same(['event' => 'typing', 'data' => 'null'], $stream->next());

    $trace = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    $id = $sse->publishToUser($user, 'traced', 1, traceparent: $trace);
    same(['id' => $id, 'event' => 'traced', 'data' => '1'], $stream->next());
    $sse->publishToUser($user, 'untraced', 1, traceparent: '');
    refused('bad-traceparent', false, static fn () =>
        $sse->publishToUser($user, 'traced', 1, traceparent: 'x'));
};

$tests['kept values reach new streams'] = static function (): void {
    [$sse, $user] = [gateway(), user()];
    $sse->publishToUser($user, 'price', 1, keep: 'btc');
    $sse->publishToUser($user, 'price', 2, keep: 'btc');
    $sse->publishToUser($user, 'price', 3, keep: 'eth', unseen: '7d');
    $sse->publishToUser($user, 'price', null, forget: 'eth');
    $stream = new Stream('SSE_TEST_GATEWAY', $sse->ticket($user, topics: []));
    same('sse.snapshot', $stream->next()['event']);
    same('2', $stream->next()['data']);
    $sse->publishToUser($user, 'end', 1);
    same('end', $stream->next()['event']);
};

$tests['undelivered events are read and acknowledged'] = static function (): void {
    [$sse, $user, $group] = [gateway(), user(), user()];
    $id = $sse->publishToUser($user, 'shipped', ['orderId' => 7], unseen: '1s');
    $find = static fn (array $events) => array_values(
        array_filter($events, static fn ($event) => $event->channel === "user:$user:events"),
    )[0] ?? null;
    while (($event = $find($sse->undelivered($group, 'first'))) === null) {
        usleep(50_000);
    }
    same([$id, 'shipped', '{"orderId":7}'], [$event->id, $event->type, $event->payload]);
    // Another consumer gets it after `idle`, and nobody after it was acknowledged.
    same($id, $find($sse->undelivered($group, 'second', idle: 0))?->id);
    $sse->acknowledge($group, $event);
    same(null, $find($sse->undelivered($group, 'second', idle: 0)));
};

$tests['errors have codes'] = static function (): void {
    $sse = gateway();
    $publish = static fn (mixed ...$args) => static fn () => $sse->publishToUser('42', ...$args);
    refused('too-large', false, $publish('a', str_repeat('x', 70_000)));
    refused('reserved-type', false, $publish('sse.a', 1));
    refused('bad-ephemeral', false, $publish('a', 1, ephemeral: true, key: 'k'));
    refused('bad-payload', false, $publish('a', NAN));
    refused('bad-payload', false, $publish('a', "\xff"));
    refused('bad-user', false, static fn () => $sse->publishToUser('4 2', 'a', 1));
    refused('bad-channel', false, static fn () => $sse->publishToBroadcast('a*', 'a', 1));
    refused('bad-channel', false, static fn () => $sse->publish('news', 'a', 1));
    $absent = gateway(keyPrefix: 'absent:', retryFor: 0);
    refused('not-loaded', true, static fn () => $absent->publishToUser('42', 'a', 1));
    // The function is `0_publish`, not `sse_publish`.
    $zero = gateway(keyPrefix: '0:', retryFor: 0);
    refused('not-loaded', true, static fn () => $zero->publishToUser('42', 'a', 1));
    $redis = connect('SSE_TEST_REDIS');
    $redis->set('sse:log:{user:broken:events}', '1');
    refused('wrong-type', false, static fn () => $sse->publishToUser('broken', 'a', 1));
    $redis->rawCommand('ACL', 'SETUSER', 'nobody', 'on', 'nopass', '+auth');
    $redis->auth(['nobody', 'any']);
    $nobody = new SseGateway($redis);
    refused('redis-error', false, static fn () => $nobody->publishToUser('42', 'a', 1));
    refused('no-redis', false, static fn () => (new SseGateway())->publishToUser('42', 'a', 1));
};

$tests['lost connections are retriable with a key'] = static function (): void {
    // Accepts connections and does not reply.
    $silent = stream_socket_server('tcp://127.0.0.1:0');
    [$host, $port] = explode(':', stream_socket_get_name($silent, false));
    $redis = new Redis();
    $redis->connect($host, (int) $port, 1, null, 0, 0.05);
    $sse = new SseGateway($redis, retryFor: 0);
    refused('redis-away', false, static fn () => $sse->publishToUser('42', 'a', 1));
    refused('redis-away', true, static fn () => $sse->publishToUser('42', 'a', 1, key: 'k'));
    $patient = new SseGateway($redis, retryFor: 0.3);
    $started = hrtime(true);
    refused('redis-away', true, static fn () => $patient->undelivered('emails', 'c'));
    same(true, hrtime(true) - $started > 150e6); // longer than one attempt
};

$tests['prefixes'] = static function (): void {
    $sse = gateway(keyPrefix: 'shop-1:', channelPrefix: 'shop:', retryFor: 0);
    $user = user();
    $stream = new Stream('SSE_TEST_PREFIXED_GATEWAY', $sse->ticket($user, topics: ['*']));
    same($sse->publishToUser($user, 'a', 1), $stream->next()['id']);
    same($sse->publish('{broadcast}:news', 'a', 1), $stream->next()['id']);
    same([], $sse->undelivered($user, 'c'));
};

$tests['a cluster'] = static function (): void {
    $nodes = explode(',', getenv('SSE_TEST_CLUSTER'));
    $sse = new SseGateway(new RedisCluster(null, [$nodes[0]]), secret: SECRET);
    // Their slots are on all masters.
    for ($n = 0; $n < 6; $n++) {
        $user = user();
        $ticket = $sse->ticket($user, topics: ['news']);
        $stream = new Stream('SSE_TEST_CLUSTER_GATEWAY', $ticket);
        $sse->publishToUser($user, 'a', 1, key: 'k', keep: 'x');
        same('a', $stream->next()['event']);
        $sse->publishToBroadcast('news', 'b', 2);
        same('b', $stream->next()['event']);
    }
    refused('reserved-type', false, static fn () => $sse->publishToUser('42', 'sse.a', 1));
    same([], $sse->undelivered('emails', 'one'));
    $moved = 0;
    foreach ($nodes as $node) {
        [$host, $port] = explode(':', $node);
        $redis = new Redis();
        $redis->connect($host, (int) $port);
        try {
            (new SseGateway($redis, retryFor: 0))->publishToUser('42', 'a', 1);
        } catch (SseError $error) {
            same(['redis-away', true], [$error->getCode(), $error->retriable]);
            $moved++;
        }
    }
    same(2, $moved);
};

$tests['a ticket has the claims that were requested'] = static function (): void {
    $part = static fn (string $ticket, int $n) =>
        json_decode(base64_decode(strtr(explode('.', $ticket)[$n], '-_', '+/')), true);
    $claims = $part((new SseGateway(secret: SECRET))->ticket('42'), 1);
    same(['sub', 'aud', 'iat', 'exp', 'jti'], array_keys($claims));
    $lifetime = $claims['exp'] - $claims['iat'];
    same(['42', 'sse-gateway', 30], [$claims['sub'], $claims['aud'], $lifetime]);
    $end = new DateTimeImmutable('+1 hour');
    $other = new SseGateway(
        secret: SECRET, audience: 'a', issuer: 'i', keyId: 'k', maxTtl: 3600,
    );
    $ticket = $other->ticket(
        '42', topics: [], filter: ['0' => ['b']], presence: true, ttl: 3600, sessionExpires: $end,
    );
    $claims = $part($ticket, 1);
    same([
        'sub' => '42', 'aud' => 'a', 'iss' => 'i', 'iat' => $claims['iat'],
        'exp' => $claims['iat'] + 3600, 'jti' => $claims['jti'], 'topics' => [],
        'filter' => ['0' => ['b']], 'presence' => true, 'session_exp' => $end->getTimestamp(),
    ], $claims);
    same(['alg' => 'HS256', 'typ' => 'JWT', 'kid' => 'k'], $part($ticket, 0));
};

$tests['the gateway accepts every claim'] = static function (): void {
    $ticket = (new SseGateway(secret: SECRET))->ticket(
        'a:b@c', topics: ['news', 'team-*', '*'], filter: ['0' => ['é'], 'x-y_z.1' => ['b']],
        presence: true, ttl: 60, sessionExpires: time() + 60,
    );
    same('a:b@c', (new Stream('SSE_TEST_GATEWAY', $ticket))->connected['user']);
};

$tests['wrong tickets are reported'] = static function (): void {
    $names = static fn (int $count, string $end = '') =>
        array_map(static fn (int $n) => "n$n$end", range(1, $count));
    $users = ['', 'a b', 'a,b', 'a*', 'a?', '[a', 'a]', '{a', 'a}', 'a\\', 'ä', "a\n",
        str_repeat('x', 257)];
    $wrong = [
        'bad-user' => array_map(static fn (string $user) => ['user' => $user], $users),
        'bad-topics' => [['topics' => ['a b']], ['topics' => ['a*b']], ['topics' => ['']],
            ['topics' => [1]], ['topics' => ['a' => 'b']], ['topics' => $names(257)]],
        'bad-filter' => [['filter' => []], ['filter' => ['a' => 'b']], ['filter' => ['a' => []]],
            ['filter' => ['a b' => ['c']]], ['filter' => ['a' => ['b c']]],
            ['filter' => ['a' => $names(65)]], ['filter' => array_fill(0, 9, ['a'])]],
        'bad-ttl' => [['ttl' => 0], ['ttl' => 61]],
        'bad-session-expires' => [['sessionExpires' => 1], ['sessionExpires' => time() * 1000]],
        'ticket-too-long' => [['topics' => $names(256, str_repeat('x', 60))]],
    ];
    $sse = new SseGateway(secret: SECRET);
    foreach ($wrong as $code => $tickets) {
        foreach ($tickets as $ticket) {
            refused($code, false, static fn () => $sse->ticket(...['user' => '42', ...$ticket]));
        }
    }
    refused('bad-secret', false, static fn () => new SseGateway(secret: str_repeat('x', 31)));
    refused('bad-secret', false, static fn () => (new SseGateway())->ticket('42'));
};

$tests['the README runs in an empty project'] = static function (): void {
    $project = sys_get_temp_dir() . '/sse-php-' . bin2hex(random_bytes(6));
    mkdir($project);
    copy(__DIR__ . '/../SseGateway.php', "$project/SseGateway.php");
    $readme = file_get_contents(__DIR__ . '/../README.md');
    preg_match_all('/^```(\w+)\n(.*?)^```$/ms', $readme, $blocks, PREG_SET_ORDER);
    $dependencies = array_splice($blocks, 1, 1)[0];
    same('json', $dependencies[1]);
    same(array_fill(0, 6, 'php'), array_column($blocks, 1));
    $local = static fn (string $code) => strtr($code, [
        '6379' => (string) parse_url(getenv('SSE_TEST_REDIS'))['port'],
        "'30s'" => "'1s'",
        '127.0.0.1:7000' => explode(',', getenv('SSE_TEST_CLUSTER'))[0],
    ]);
    $start = static function (string $code) use ($project, $local): array {
        file_put_contents("$project/program.php", "<?php\n" . $local($code));
        $command = [PHP_BINARY, '-d', 'output_buffering=1000000', "$project/program.php"];
        $process = proc_open($command, [1 => ['pipe', 'w']], $pipes, $project);
        return [$process, $pipes[1]];
    };
    $run = static function (string $code) use ($start): string {
        [$process, $output] = $start($code);
        $text = stream_get_contents($output);
        same(0, proc_close($process));
        return $text;
    };
    $codes = array_column($blocks, 2);
    [$ticket, $id] = explode(' ', trim($run($codes[0])));
    same(1, preg_match(ID, $id));
    $connected = (new Stream('SSE_TEST_GATEWAY', $ticket))->connected;
    same(['news', 'team-*'], $connected['topics']);
    installWithComposer($project, $dependencies[2]);
    $autoload = str_replace('SseGateway.php', 'vendor/autoload.php', $codes[0], $count);
    same([1, false], [$count, file_exists("$project/SseGateway.php")]);
    same($id, explode(' ', trim($run($autoload)))[1]); // because of the key
    copy(__DIR__ . '/../SseGateway.php', "$project/SseGateway.php");
    [[$worker], $others] = [
        array_values(preg_grep('/sse->undelivered/', $codes)),
        preg_grep('/sse->undelivered/', $codes, PREG_GREP_INVERT),
    ];
    // A `use` must not be after code of the same name, so all examples are one program.
    $lines = explode("\n", trim($run(implode("\n", $others))));
    $ticket = json_decode(substr($lines[1], 0, strpos($lines[1], '}') + 1), true)['ticket'];
    same(['news'], (new Stream('SSE_TEST_GATEWAY', $ticket))->connected['topics']);
    same(true, str_ends_with($lines[1], '}too-large false'));
    [$process, $output] = $start($codes[0] . "ob_end_flush();\n" . $worker);
    do {
        $line = fgets($output);
        same(true, is_string($line));
    } while (!str_starts_with($line, 'email user:42:events shipped'));
    proc_terminate($process, 9);
    proc_close($process);
    execute('rm -r ' . escapeshellarg($project));
};

// Last: it ends the state in which the server is not adopted.
$tests['an unadopted server is a temporary error'] = static function (): void {
    $impatient = gateway('SSE_TEST_UNADOPTED', retryFor: 0);
    refused('not-adopted', true, static fn () => $impatient->publishToUser('42', 'a', 1));
    $short = gateway('SSE_TEST_UNADOPTED', retryFor: 0.3);
    refused('not-adopted', true, static fn () => $short->publishToUser('42', 'a', 1));
    exec('kill -CONT ' . getenv('SSE_TEST_STOPPED_GATEWAY'));
    $patient = gateway('SSE_TEST_UNADOPTED', retryFor: 30);
    same(1, preg_match(ID, $patient->publishToUser('42', 'a', 1)));
};

$failed = 0;
foreach ($tests as $name => $test) {
    try {
        $test();
        echo "ok - $name\n";
    } catch (Throwable $error) {
        $failed++;
        echo "FAILED - $name: $error\n";
    }
}
$passed = count($tests) - $failed;
echo "$passed passed, $failed failed\n";
exit($failed === 0 ? 0 : 1);
