import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { post, publishIndexes, serve } from '../support/http.ts'
import { findProgram, type Running, start } from '../support/programs.ts'

const program = findProgram('curl') ?? ''
const skip = program === '' ? 'curl is not installed' : false

function curl(t: TestContext, args: readonly string[], input?: string): Running {
  return start(
    t,
    program,
    ['--silent', '--show-error', '--no-buffer', '--max-time', '60', ...args],
    input === undefined ? {} : { input },
  )
}

async function allLines({ nextLine }: Running): Promise<string[]> {
  const lines: string[] = []
  for (let line = await nextLine(); line !== undefined; line = await nextLine()) lines.push(line)
  return lines
}

test('curl follows /v1/events as Server-Sent Events and sees the end', { skip }, async (t) => {
  const site = await serve(t)
  const running = curl(t, [`${site.url}/v1/events`])
  const { epoch } = site.broker.status
  assert.equal(await running.nextLine(), 'retry: 1000')
  assert.equal(await running.nextLine(), `id: ${epoch}:0`)
  assert.equal(await running.nextLine(), '')
  await publishIndexes(site.broker, 1, 1)
  assert.equal(await running.nextLine(), `id: ${epoch}:1`)
  assert.match((await running.nextLine()) as string, /^data: \{"index":1,/)
  await site.broker.close()
  const [empty, ...rest] = await allLines(running)
  assert.equal(empty, '')
  assert.deepEqual(rest.slice(0, 2), ['event: closed', `id: ${epoch}:1`])
  assert.equal(await running.exit, 0, running.complaints())
})

test('curl follows /v1/events as NDJSON, and resumes from a cursor', { skip }, async (t) => {
  const site = await serve(t)
  await publishIndexes(site.broker, 1, 3)
  const { epoch } = site.broker.status
  const running = curl(t, ['-H', 'Accept: application/x-ndjson', `${site.url}/v1/events?from=${epoch}:1`])
  assert.match((await running.nextLine()) as string, /^\{"open":/)
  for (const index of [2, 3]) assert.match((await running.nextLine()) as string, new RegExp(`^\\{"index":${index},`))
  await site.broker.close()
  const rest = await allLines(running)
  assert.equal(rest.length, 1)
  assert.match(rest[0] as string, /^\{"closed":/)
  assert.equal(await running.exit, 0, running.complaints())
})

test('curl follows the endpoint of Nomad, over HTTP/1.1 and 1.0', { skip }, async (t) => {
  const site = await serve(t)
  await publishIndexes(site.broker, 1, 1)
  for (const version of ['--http1.1', '--http1.0']) {
    const running = curl(t, [version, `${site.url}/v1/event/stream?topic=Tick`])
    assert.equal(await running.nextLine(), '{}')
    assert.match((await running.nextLine()) as string, /"Index":1\}$/)
  }
})

test('curl publishes an event, a batch and lines', { skip }, async (t) => {
  const site = await serve(t)
  const json = ['-H', 'Content-Type: application/json']
  const one = '{"topic":"T","type":"t","payload":1600000000000000001}'
  const requests = [
    [[...json, '-d', one], 1],
    [[...json, '-d', `[${one},${one}]`], 2],
    [['-H', 'Content-Type: application/x-ndjson', '--data-binary', '@-'], 4],
    [[...json, '-X', 'POST', '-T', '-'], 5],
  ] as const
  for (const [args, index] of requests) {
    const input = index === 4 ? `${one}\n${one}\n` : index === 5 ? one : ''
    const running = curl(t, [...args, `${site.url}/v1/events`], input)
    const answer = JSON.parse((await running.nextLine()) as string) as { index: number }
    assert.equal(answer.index, index)
  }
})

test('curl is told that a body is too large, whether it waits for 100-continue, sends it at once or in chunks', {
  skip,
}, async (t) => {
  const site = await serve(t)
  const body = 'x'.repeat(20 * 2 ** 20)
  for (const how of [
    ['--data-binary', '@-'],
    ['--data-binary', '@-', '-H', 'Expect:'],
    // Whether the answer arrives before the connection breaks is a matter of luck, if the server does not see to it.
    ...Array.from({ length: 20 }, () => ['-X', 'POST', '-T', '-', '-H', 'Expect:']),
  ]) {
    const running = curl(
      t,
      ['-H', 'Content-Type: application/json', '-w', '\n%{http_code}', ...how, `${site.url}/v1/events`],
      body,
    )
    const lines = await allLines(running)
    assert.deepEqual([lines.at(-1), await running.exit], ['413', 0], `${how.join(' ')}: ${running.complaints()}`)
    assert.equal((JSON.parse(lines[0] as string) as { code: string }).code, 'TOO_LARGE')
  }
  assert.equal((await post(site, { topic: 'T', type: 't' })).json.index, 1)
})
