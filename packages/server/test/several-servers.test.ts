// Several servers over one log in NATS JetStream, each a process of its own.
import assert from 'node:assert/strict'
import { copyFile } from 'node:fs/promises'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { type JetStreamManager, jetstreamManager } from '@nats-io/jetstream'
import { connect } from '@nats-io/transport-node'
import type { NatsServer } from '@spillway/engines'
import { follow, keysOf, nats, noNats, post, until } from './support/edges.ts'
import { folder } from './support/folder.ts'
import { run, serve } from './support/program.ts'

const skip = noNats

/** `count` servers over one log. */
async function edges(t: TestContext, engine: NatsServer, count: number, ...args: string[]) {
  const started = Array.from({ length: count }, () => serve(t, '--log', engine.url, ...args))
  return Promise.all(started)
}

async function managed(t: TestContext, engine: NatsServer): Promise<JetStreamManager> {
  const connection = await connect({ servers: engine.url })
  t.after(() => connection.close())
  return jetstreamManager(connection)
}

test('what one server publishes every other serves, and a cursor of one goes on at any other', { skip }, async (t) => {
  const engine = await nats(t)
  const [first, second, threaded] = [
    ...(await edges(t, engine, 2)),
    await serve(t, '--log', engine.url, '--threads', '2'),
  ].map(({ url }) => url) as [string, string, string]
  const urls = [first, second, threaded]
  const readers = await Promise.all(urls.map((url) => follow(t, url)))
  const cursors: string[] = []
  for (let n = 0; n < 12; n++) {
    const { status, index, cursor = '' } = await post(urls[n % 3] as string, String(n))
    assert.deepEqual([status, index], [200, n + 1])
    cursors.push(cursor)
  }
  const keys = Array.from({ length: 12 }, (_, n) => String(n))
  for (const reader of readers) {
    await reader.until(({ index }) => index === 12)
    assert.deepEqual(keysOf(reader), keys)
  }
  for (const [n, url] of urls.entries()) {
    const after = 3 * n + 2
    const reader = await follow(t, url, `from=${cursors[after]}`)
    await reader.until(({ index }) => index === 12)
    assert.deepEqual(keysOf(reader), keys.slice(after + 1))
  }
})

test('of servers that expect the same newest index exactly one publishes, and a retry at another is told the first', {
  skip,
}, async (t) => {
  const [a, b] = (await edges(t, await nats(t), 2)).map(({ url }) => url) as [string, string]
  for (let n = 0; n < 10; n++) {
    const query = `?expected=${n}`
    const answers = await Promise.all([post(a, `a${n}`, { query }), post(b, `b${n}`, { query })])
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 409], JSON.stringify(answers))
  }
  const headers = { 'idempotency-key': 'once' }
  const first = await post(a, 'x', { headers })
  const again = await post(b, 'x', { headers })
  assert.deepEqual([again.index, again.duplicate, again.cursor], [first.index, true, first.cursor])
  const reused = await post(b, 'y', { headers })
  assert.deepEqual([reused.status, reused.code], [409, 'KEY_REUSED'])
})

for (const threads of [[], ['--threads', '2']]) {
  test(`a token that one server sees revoked ends its readers at all, before what is published later ${threads.join(' ')}`, {
    skip,
  }, async (t) => {
    const engine = await nats(t)
    const place = await folder(t)
    const files = ['a', 'b'].map((name) => path.join(place, `${name}.json`)) as [string, string]
    const made = async (name: string) => {
      const { stdout } = await run(t, [
        'token',
        'create',
        '--file',
        files[0],
        '--name',
        name,
        '--read',
        '*',
        '--publish',
        '*',
      ])
      return stdout.trim()
    }
    const [gone, stays] = [await made('gone'), await made('stays')]
    await copyFile(...files)
    const auth = (file: string) => ['--auth', 'tokens', '--tokens', file]
    const [a, b] = await Promise.all([
      serve(t, '--log', engine.url, ...auth(files[0]), ...threads),
      serve(t, '--log', engine.url, ...auth(files[1]), ...threads),
    ])
    const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
    const readers = await Promise.all(
      [gone, stays].flatMap((token) => [a, b].map(({ url }) => follow(t, url, 'from=earliest', bearer(token)))),
    )
    await post(a.url, 'before', { headers: bearer(stays) })
    for (const reader of readers) await reader.until(({ index }) => index !== undefined)
    // Both are told by their own file; the first of them tells the other, whose readers are asked for again.
    for (const file of files) assert.equal((await run(t, ['token', 'revoke', '--file', file, gone])).code, 0)
    for (const reader of readers.slice(0, 2)) {
      const { closed } = await reader.until(({ closed }) => closed !== undefined)
      assert.equal(closed?.code, 'REVOKED')
    }
    await post(b.url, 'after', { headers: bearer(stays) })
    for (const reader of readers.slice(2)) await reader.until(({ events = [] }) => events[0]?.key === 'after')
    assert.deepEqual(readers.map(keysOf), [['before'], ['before'], ['before', 'after'], ['before', 'after']])
  })
}

test('while the engine is away readers stay, publishing waits or is told so, nothing is lost, and it goes on by itself', {
  skip,
}, async (t) => {
  let engine = await nats(t)
  const [patient, hasty] = await Promise.all([
    serve(t, '--log', engine.url, '--heartbeat', '100'),
    serve(t, '--log', engine.url, '--patience', '50'),
  ])
  const reader = await follow(t, patient.url)
  await post(patient.url, 'a')
  const before = reader.items.length
  const isReady = async () => (await fetch(`${patient.url}/readyz`)).ok
  assert.equal(await isReady(), true)
  await engine.stop()
  await until(async () => !(await isReady()))
  assert.equal(await (await fetch(`${patient.url}/healthz`)).text(), 'ok\n')
  assert.match(await (await fetch(`${patient.url}/metrics`)).text(), /^spillway_log_connected 0$/m)
  const waiting = post(patient.url, 'b')
  const refused = await post(hasty.url, 'c')
  assert.deepEqual([refused.status, refused.code], [503, 'LOG_FAILED'])
  assert.match(refused.detail ?? '', /not stored|not known whether/)
  assert.match(refused.retryAfter ?? '', /^\d+$/)
  await reader.until((message) => message.progress !== undefined && reader.items.indexOf(message) > before)
  const latecomer = await follow(t, patient.url)
  await latecomer.until(({ index }) => index === 1)
  engine = await engine.restart()
  t.after(() => engine.stop())
  const stored = await waiting
  assert.equal(stored.status, 200)
  await until(isReady)
  const last = await post(hasty.url, 'd')
  for (const each of [reader, latecomer]) {
    await each.until(({ index }) => index === last.index)
    const keys = keysOf(each)
    assert.deepEqual(
      keys.filter((key) => key !== 'c'),
      ['a', 'b', 'd'],
    )
    assert.equal(
      each.items.some(({ closed, gap, reset, over }) => closed ?? gap ?? reset ?? over),
      false,
    )
  }
  await patient.server.stderr.line(/The engine is back/)
  const lines = patient.server.stderr.lines.filter((line) => /The engine is (away|back)/.test(line))
  assert.equal(lines.length, 2, lines.join('\n'))
  assert.match(await (await fetch(`${patient.url}/metrics`)).text(), /^spillway_log_reconnects_total 1$/m)
})

for (const threads of [[], ['--threads', '2']]) {
  test(`a history that was replaced is told to readers, and the next one served by the same process ${threads.join(' ')}`, {
    skip,
  }, async (t) => {
    const engine = await nats(t)
    const [a, b] = (await edges(t, engine, 2, ...threads)) as [
      Awaited<ReturnType<typeof serve>>,
      Awaited<ReturnType<typeof serve>>,
    ]
    const readers = await Promise.all([a, b].map(({ url }) => follow(t, url)))
    const { cursor = '' } = await post(a.url, 'old')
    const manager = await managed(t, engine)
    await manager.streams.delete('spillway')
    for (const reader of readers) {
      const { closed } = await reader.until(({ closed }) => closed !== undefined)
      assert.deepEqual([closed?.code, closed?.cursor], ['SHUTDOWN', cursor])
    }
    await until(async () => (await post(b.url, 'new')).status === 200)
    await until(
      async () =>
        (await fetch(`${a.url}/readyz`)).ok &&
        !(await post(a.url, 'more')).cursor?.startsWith(cursor.split(':')[0] as string),
    )
    for (const { url, server } of [a, b]) {
      const again = await follow(t, url, `from=${cursor}`)
      await again.until(({ events = [] }) => events[0]?.key === 'more')
      const reset = again.items.findIndex(({ reset }) => reset !== undefined)
      assert.ok(
        reset >= 0 && reset < again.items.findIndex(({ index }) => index !== undefined),
        JSON.stringify(again.items),
      )
      assert.equal(keysOf(again)[0], 'new')
      assert.equal(server.child.exitCode, null)
    }
  })
}

test('a server whose engine is away ends within its time, and who waits for a publish is told that nobody knows', {
  skip,
}, async (t) => {
  const engine = await nats(t)
  const { server, url } = await serve(t, '--log', engine.url)
  await post(url, 'a')
  await engine.stop()
  await until(async () => !(await fetch(`${url}/readyz`)).ok)
  const waiting = post(url, 'b')
  // Behind that.
  await (await fetch(`${url}/healthz`)).text()
  server.kill('SIGTERM')
  const { status, code } = await waiting
  assert.deepEqual([status, code], [503, 'LOG_FAILED'])
  assert.equal(await server.ended, 0)
})
