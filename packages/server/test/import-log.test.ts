// `spillway import --log` and `spillway export --log`: from a directory into a stream and back, over real processes.
import assert from 'node:assert/strict'
import path from 'node:path'
import { test } from 'node:test'
import { follow, keysOf, nats, noNats, post } from './support/edges.ts'
import { folder } from './support/folder.ts'
import { run, serve } from './support/program.ts'

const skip = noNats
const line = (index: number, key: string) =>
  JSON.stringify({
    index,
    time: 1_700_000_000_000 + index,
    events: [{ topic: 'Order', type: 't', key, namespace: '', filterKeys: [], payload: null }],
  })
const end = (batches: number) => JSON.stringify({ end: { batches } })

test('a history moves from a directory into a cluster with its indexes, and goes on there', { skip }, async (t) => {
  const engine = await nats(t)
  const place = path.join(await folder(t), 'data')
  const { server, url } = await serve(t, '--data', place)
  await fetch(`${url}/v1/events`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-ndjson' },
    body: [1, 2, 10]
      .map((index) => `{"index":${index},"events":[{"topic":"Order","type":"t","key":"k${index}"}]}`)
      .join('\n'),
  })
  server.kill('SIGTERM')
  await server.ended
  const exported = await run(t, ['export', place])
  const { code, stderr } = await run(t, ['import', '--log', engine.url], { input: exported.stdout })
  assert.deepEqual([code, stderr], [0, 'spillway import: 3 batches imported.\n'])
  const edges = await Promise.all([serve(t, '--log', engine.url), serve(t, '--log', engine.url)])
  assert.equal((await post(edges[0].url, 'new')).index, 11)
  for (const edge of edges) {
    const reader = await follow(t, edge.url)
    await reader.until(({ index }) => index === 11)
    assert.deepEqual(keysOf(reader), ['k1', 'k2', 'k10', 'new'])
    assert.equal(
      reader.items.some(({ gap }) => gap !== undefined),
      false,
    )
  }
  const back = await run(t, ['export', '--log', engine.url])
  assert.deepEqual([back.code, back.stderr], [0, 'spillway export: 4 batches written.\n'])
  const lines = (text: string) => text.trim().split('\n').slice(0, 3)
  assert.deepEqual(lines(back.stdout), lines(exported.stdout))
  const again = await run(t, ['import'], { input: exported.stdout, env: { SPILLWAY_LOG: engine.url } })
  assert.deepEqual([again.code, again.stderr.includes('There is a stream spillway already')], [1, true], again.stderr)
})

test('what is wrong with an import is named, nothing is left behind, and the name can be used', { skip }, async (t) => {
  const engine = await nats(t)
  const cases: [args: string[], input: string, code: number, message: RegExp][] = [
    [[], `${line(1, 'a')}\n`, 1, /was cut off. Nothing was imported/],
    [[], `${line(1, 'a')}\n${line(1, 'b')}\n${end(2)}\n`, 1, /Line 2 has index 1 after 1/],
    [[], `${line(1, 'a')}\n${line(2_000_000, 'b')}\n${end(2)}\n`, 1, /1999998 numbers without a batch/],
    [['--replicas', '3'], `${line(1, 'a')}\n${end(1)}\n`, 1, /3 replicas need a cluster/],
    [['dir'], '', 2, /Name a directory or --log, not both/],
    [['--replicas', 'x'], '', 2, /--replicas must be an integer/],
  ]
  for (const [args, input, code, message] of cases) {
    const ended = await run(t, ['import', '--log', engine.url, ...args], { input })
    assert.match(ended.stderr, message)
    assert.equal(ended.code, code, ended.stderr)
  }
  const none = await run(t, ['import'], { input: `${line(1, 'a')}\n` })
  assert.deepEqual([none.code, none.stderr.includes('<dir> or --log is required')], [2, true], none.stderr)
  const misplaced = await run(t, ['import', 'dir', '--replicas', '3'], { input: '' })
  assert.deepEqual([misplaced.code, misplaced.stderr.includes('--replicas is for --log')], [2, true], misplaced.stderr)
  const lost = JSON.stringify({ lost: { after: 5, before: 8 } })
  const fine = `${line(5, 'a')}\n${lost}\n${line(8, 'b')}\n${end(2)}\n`
  assert.equal((await run(t, ['import', '--log', engine.url], { input: fine })).code, 0)
  const { url } = await serve(t, '--log', engine.url)
  const reader = await follow(t, url)
  await reader.until(({ index }) => index === 8)
  assert.deepEqual(keysOf(reader), ['a', 'b'])
  const back = await run(t, ['export'], { env: { SPILLWAY_LOG: engine.url } })
  assert.deepEqual([back.code, back.stdout], [1, fine])
  const nowhere = await run(t, ['export', '--log', engine.url, '--log-name', 'none'])
  assert.deepEqual([nowhere.code, nowhere.stderr.includes('There is no stream none')], [1, true], nowhere.stderr)
  const { gap } = await reader.until(({ gap }) => gap !== undefined)
  assert.partialDeepStrictEqual(gap, { after: 5, before: 8, reason: 'corrupt' })
})
