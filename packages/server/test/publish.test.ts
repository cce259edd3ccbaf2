import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { event } from './support/events.ts'
import { Program, run, serve } from './support/program.ts'

/** What a server keeps, as lines of its stream. */
async function kept(t: TestContext, url: string, count: number): Promise<string[]> {
  const { stdout } = await run(t, ['tail', '--url', url, '--from', 'earliest', '--count', String(count), '--json'])
  return stdout.trim().split('\n')
}

async function newest(url: string): Promise<number> {
  return ((await (await fetch(`${url}/v1/status`)).json()) as { newest: number }).newest
}

const lines = (...values: unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`).join('')

test('one event is published from flags, its payload to the last digit, and its place is printed', async (t) => {
  const { url } = await serve(t)
  const flags = ['--topic', 'Order', '--type', 'OrderPlaced', '--key', 'A1', '--namespace', 'shop']
  const { code, stdout, stderr } = await run(
    t,
    [
      'publish',
      ...flags,
      '--filter-key=--f',
      '--filter-key',
      'g',
      '--index',
      '7',
      '--payload',
      '{"n":1600000000000000001}',
    ],
    { env: { SPILLWAY_URL: url } },
  )
  assert.equal(stderr, '')
  assert.equal(code, 0)
  const { index, cursor, ...rest } = JSON.parse(stdout)
  assert.equal(index, 7)
  assert.match(cursor, /:7$/)
  assert.deepEqual(rest, {})
  assert.ok(
    (await kept(t, url, 1))
      .at(-1)
      ?.endsWith(
        '"events":[{"topic":"Order","type":"OrderPlaced","key":"A1","namespace":"shop","filterKeys":["--f","g"],"payload":{"n":1600000000000000001}}]}',
      ),
  )
})

test('a payload comes from standard input or a file', async (t) => {
  const { url } = await serve(t)
  const folder = mkdtempSync(path.join(tmpdir(), 'spillway-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const file = path.join(folder, 'payload.json')
  writeFileSync(file, '{\n "a": 1.0\n}\n')
  const publish = ['publish', '--url', url, '--topic', 'T', '--type', 't', '--payload-file']
  assert.equal((await run(t, [...publish, file])).code, 0)
  assert.equal((await run(t, [...publish, '-'], { input: '"é"' })).code, 0)
  const [first = '', second = ''] = await kept(t, url, 2)
  assert.ok(first.includes('"payload":{  "a": 1.0 }'), first)
  assert.ok(second.includes('"payload":"é"'), second)

  const missing = await run(t, [...publish, path.join(folder, 'missing')])
  assert.equal(missing.code, 1)
  assert.match(missing.stderr, /--payload-file .*missing cannot be read/)
  const binary = await run(t, [...publish, '-'], { input: Buffer.from([0x22, 0xff, 0x22]) })
  assert.equal(binary.code, 1)
  assert.match(binary.stderr, /must be UTF-8/)
})

test('an event that the server refuses ends with 1 and its message', async (t) => {
  const { url } = await serve(t)
  const { code, stdout, stderr } = await run(t, ['publish', '--url', url, '--topic', 'a:b', '--type', 't'])
  assert.equal(code, 1)
  assert.equal(stdout, '')
  assert.match(stderr, /^spillway publish: event\.topic must not be .* got "a:b"\.\n$/)
})

test('lines of standard input are published, blank ones and a missing last line break included', async (t) => {
  const { url } = await serve(t)
  const input = `${lines(event('1'), [event('2'), event('3')])}\n  \r\n${lines({ index: 9, events: [event('4')] })}${JSON.stringify(event('5'))}`
  const { code, stdout, stderr } = await run(t, ['publish', '--url', url], { input })
  assert.equal(code, 0)
  assert.equal(JSON.parse(stdout).index, 10)
  assert.equal(stderr, '4 batches published from 6 lines.\n')
  assert.equal(await newest(url), 10)
})

test('more lines than one request takes are published in several', async (t) => {
  const { url } = await serve(t)
  const input = lines(...Array.from({ length: 20_000 }, (_, i) => event(String(i))))
  const { code, stdout, stderr } = await run(t, ['publish', '--url', url], { input })
  assert.equal(code, 0)
  assert.equal(JSON.parse(stdout).index, 20_000)
  assert.equal(stderr, '20,000 batches published from 20,000 lines.\n')
})

test('a line is published as it comes, before the input ends', async (t) => {
  const { url } = await serve(t)
  const program = new Program(t, ['publish', '--url', url], { input: null })
  const tail = new Program(t, ['tail', '--url', url, '--from', 'earliest'])
  program.child.stdin?.write(lines(event('early')))
  await tail.stdout.line(/early/)
  program.child.stdin?.end()
  assert.equal(await program.ended, 0)
})

test('no line at all is fine', async (t) => {
  const { url } = await serve(t)
  assert.deepEqual(await run(t, ['publish', '--url', url], { input: '\n' }), {
    code: 0,
    stdout: '',
    stderr: 'The input holds no line to publish.\n',
  })
})

test('the first refused request ends it; what is stored and what is not is said in lines of the input', async (t) => {
  const { url } = await serve(t)
  const good = Array.from({ length: 510 }, (_, i) => event(String(i)))
  const input = `\n${lines(...good)}{"topic":\n${lines(event('after'))}`
  const { code, stdout, stderr } = await run(t, ['publish', '--url', url], { input })
  assert.equal(code, 1)
  assert.equal(stdout, '')
  assert.match(stderr, /Refused \(lines [0-9]+ to 513\): line 512 is not JSON/)
  const [, stored] = /Stored: lines 1 to ([0-9]+) \(newest index [0-9]+\)\. Not stored: from line/.exec(stderr) ?? []
  assert.equal(await newest(url), Number(stored) - 1)
})

test('a line that is too long is refused by its number, after what stands before it', async (t) => {
  const { url } = await serve(t)
  const input = `${lines(event('1'))}${JSON.stringify(event('x'.repeat(600_000)))}\n${lines(event('3'))}`
  const { code, stderr } = await run(t, ['publish', '--url', url], { input })
  assert.equal(code, 1)
  assert.match(stderr, /Line 2 has more than 524288 bytes\..*Stored: line 1 .*Not stored: from line 2 on/)
  assert.equal(await newest(url), 1)
})

test('a server that is not there, is lost or is something else is told apart', async (t) => {
  let answer = 'cut'
  const other = createServer((request, response) => {
    if (answer === 'cut') request.socket.destroy()
    else if (answer === 'proxy') response.writeHead(502).end('<html>')
    else response.end('hello')
  })
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
  t.after(() => other.close())
  const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`
  const publish = async () => (await run(t, ['publish', '--url', url], { input: lines(event('1')) })).stderr
  assert.match(await publish(), /Cannot reach .*the connection was cut.* Perhaps stored: line 1\./)
  answer = 'proxy'
  assert.match(await publish(), /502 Bad Gateway, which is not an answer of Spillway's\. .*Perhaps stored: line 1\./)
  answer = 'hello'
  assert.match(await publish(), /is not JSON\. Is it a Spillway server\?/)
  await new Promise((resolve) => other.close(resolve))
  const { code, stderr } = await run(t, ['publish', '--url', url], { input: lines(event('1')) })
  assert.equal(code, 1)
  assert.match(stderr, /Cannot reach .*connection refused\..* Stored: none\. Not stored: from line 1 on\./)
})

test('the token comes from the environment', async (t) => {
  const tokens: (string | undefined)[] = []
  const server = createServer((request, response) => {
    tokens.push(request.headers.authorization)
    response.writeHead(401, { 'content-type': 'application/problem+json' })
    response.end(JSON.stringify({ detail: 'Who are you?\u001b[2J' }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const env = { SPILLWAY_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, SPILLWAY_TOKEN: 'secret' }
  for (const args of [['publish', '--topic', 'T', '--type', 't'], ['tail'], ['status']]) {
    const { code, stderr } = await run(t, args, { env })
    assert.equal(code, 1)
    assert.match(stderr, /Who are you\?\\u001b\[2J/)
    assert.doesNotMatch(stderr, /secret/)
  }
  assert.deepEqual(tokens, ['Bearer secret', 'Bearer secret', 'Bearer secret'])
})
