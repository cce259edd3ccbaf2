import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { event, gist, publish } from './support/events.ts'
import { Program, run, serve } from './support/program.ts'

async function folder(t: TestContext): Promise<string> {
  const made = await mkdtemp(path.join(tmpdir(), 'spillway-'))
  t.after(() => rm(made, { recursive: true, force: true }))
  return path.join(made, 'a', 'data')
}

/** The next whole lines of a stream, as JSON. */
async function lines(url: string, count: number): Promise<Record<string, unknown>[]> {
  const response = await fetch(url, { headers: { accept: 'application/x-ndjson' } })
  let text = ''
  for await (const bytes of response.body as AsyncIterable<Uint8Array>) {
    text += Buffer.from(bytes).toString()
    if (text.split('\n').length > count) break
  }
  return text
    .split('\n')
    .slice(0, count)
    .map((line) => JSON.parse(line))
}

for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
  test(`what was published with --data is there again after ${signal}, and readers go on with their cursors`, async (t) => {
    const data = await folder(t)
    const first = await serve(t, '--data', data)
    await publish(first.url, event('a'), event('b'))
    const { cursor } = (await (await fetch(`${first.url}/v1/status`)).json()) as { cursor: string }
    await publish(first.url, event('c'))
    first.server.child.kill(signal)
    await first.server.ended
    const second = await serve(t, '--data', data, '--durability', 'process')
    await publish(second.url, event('d'))
    const [open, ...batches] = await lines(`${second.url}/v1/events?from=${cursor}`, 3)
    assert.deepEqual(Object.keys(open ?? {}), ['open'])
    assert.deepEqual(
      batches.map(({ index }) => index),
      [3, 4],
    )
  })
}

test('a directory that is in use, is none, or holds what is not ours ends with 1 and says why', async (t) => {
  const data = await folder(t)
  await serve(t, '--data', data)
  const second = await run(t, ['serve', '--port', '0', '--data', data])
  assert.equal(second.code, 1)
  assert.match(second.stderr, /spillway\.db is in use by another process/)

  const file = path.join(data, 'text')
  await writeFile(file, 'text')
  const none = await run(t, ['serve', '--port', '0', '--data', path.join(file, 'below')])
  assert.equal(none.code, 1)
  assert.match(none.stderr, /--data .* (cannot be made|is not a directory)/)

  const other = path.join(path.dirname(data), 'spillway.db')
  await writeFile(other, 'not a database')
  const foreign = await run(t, ['serve', '--port', '0', '--data', path.dirname(data)])
  assert.equal(foreign.code, 1)
  assert.match(foreign.stderr, /spillway\.db is not a log of Spillway\. .* It was not touched\./)
  assert.equal(await readFile(other, 'utf8'), 'not a database')
})

test('without --data history is in ./spillway-data, and with --memory nowhere', async (t) => {
  const cwd = await mkdtemp(path.join(tmpdir(), 'spillway-'))
  t.after(() => rm(cwd, { recursive: true, force: true }))
  const inMemory = new Program(t, ['serve', '--memory', '--port', '0'], { cwd })
  await inMemory.stdout.line(/history +in memory, until the server ends/)
  assert.deepEqual(await readdir(cwd), [])
  const server = new Program(t, ['serve', '--port', '0'], { cwd })
  await server.stdout.line(/history +in .*spillway-data\/spillway\.db/)
  assert.deepEqual(await readdir(cwd), ['spillway-data'])
})

test('publish --id is stored once, --expected only there, and tail --last and --from <time> start where they say', async (t) => {
  const { url } = await serve(t)
  const started = new Date().toISOString()
  const one = ['publish', '--url', url, '--topic', 'T', '--type', 't', '--key']
  const first = await run(t, [...one, 'a', '--id', 'x', '--expected', '0'])
  const again = await run(t, [...one, 'a', '--id', 'x', '--expected', '0'])
  assert.equal(JSON.parse(again.stdout).index, 1)
  assert.deepEqual([first.code, again.code], [0, 0])
  const other = await run(t, [...one, 'b', '--id', 'x'])
  assert.equal(other.code, 1)
  assert.match(other.stderr, /KEY_REUSED|same key|other events/i)
  const late = await run(t, [...one, 'b', '--expected', '0'])
  assert.equal(late.code, 1)
  assert.match(late.stderr, /index is 1/)
  await run(t, [...one, 'b', '--expected', '1'])
  const last = await run(t, ['tail', '--url', url, '--last', '1', '--count', '1', '--json'])
  assert.deepEqual(last.stdout.trim().split('\n').map(gist), ['b'])
  const since = await run(t, ['tail', '--url', url, '--from', started, '--count', '2', '--json'])
  assert.deepEqual(since.stdout.trim().split('\n').map(gist), ['a', 'b'])
})
