import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { type FollowOptions, follow, type StreamMessage } from '../src/follow.ts'
import { batch, fakeStream, open, type Script, stream } from './support/fake-stream.ts'

async function setup(t: TestContext, ...scripts: Script[]) {
  const { url, queries } = await fakeStream(t, ...scripts)
  const notices: string[] = []
  const options = {
    remote: { url: new URL(url), token: undefined },
    topics: [],
    namespaces: [],
    from: 'latest',
    onNotice: (notice) => notices.push(notice),
    random: () => 0,
  } satisfies FollowOptions
  return { options, notices, queries }
}

const indexOf = ({ value }: StreamMessage) => ('index' in value ? value.index : value)

test('a server that says nothing at first, or no more, counts as lost', async (t) => {
  const { options, notices, queries } = await setup(
    t,
    (response) => stream(response, open('e:0'), batch(1)),
    (response) => stream(response).flushHeaders(),
    (response) => stream(response, open('e:1'), batch(2)),
  )
  const read: unknown[] = []
  // Long enough for the first connection of a process on a busy machine.
  for await (const message of follow({ ...options, firstLineWithin: 1500, nextLineWithin: 50 })) {
    read.push(indexOf(message))
    if (read.length === 2) break
  }
  assert.deepEqual(read, [1, 2])
  assert.match(notices[0] ?? '', /has been silent for 0\.05 s; trying again in 0\.1 s/)
  assert.match(notices.at(-1) ?? '', /connected again, after e:1/)
  assert.ok(queries.length >= 3)
})

test('a server that says nothing at the very first ends it', async (t) => {
  const { options } = await setup(t, () => {})
  await assert.rejects(follow({ ...options, firstLineWithin: 50 }).next(), {
    name: 'StreamEnded',
    message: /has been silent for 0\.05 s/,
  })
})

test('waits grow while nothing works', async (t) => {
  const { options, notices } = await setup(
    t,
    (response) => stream(response, open('e:0')).end(),
    (response) => response.destroy(),
    (response) => response.destroy(),
    (response) => stream(response, open('e:0'), batch(1)),
  )
  for await (const _ of follow(options)) break
  assert.deepEqual(
    notices.map((notice) => /in ([0-9.]+) s/.exec(notice)?.[1]),
    ['0.1', '0.3', '0.5', undefined],
  )
})

test('the signal ends it, while it reads and while it waits', async (t) => {
  const { options } = await setup(
    t,
    (response) => stream(response, open('e:0')),
    (response) => stream(response, open('e:0'), { closed: { code: 'C', message: '', retry: 1e6, cursor: 'e:0' } }),
  )
  const reading = follow({ ...options, signal: AbortSignal.timeout(50) })
  await assert.rejects(reading.next(), { name: 'TimeoutError' })
  const controller = new AbortController()
  const waiting = follow({
    ...options,
    signal: controller.signal,
    onNotice: () => setImmediate(() => controller.abort(new Error('enough'))),
  })
  await assert.rejects(
    waiting.next(),
    (error: Error) => error === controller.signal.reason || error.name === 'AbortError',
  )
})

test('a damaged stream is read again from the last whole batch', async (t) => {
  for (const garbage of ['nonsense\n', '7\n', 'null\n']) {
    const { options, queries } = await setup(
      t,
      (response) => stream(response, open('e:0'), batch(1), garbage, batch(9)),
      (response) => stream(response, open('e:1'), batch(2)),
    )
    const read: unknown[] = []
    for await (const message of follow(options)) {
      read.push(indexOf(message))
      if (read.length === 2) break
    }
    assert.deepEqual(read, [1, 2])
    assert.equal(queries[1]?.get('from'), 'e:1')
  }
})

test('a message that this version does not know is passed over', async (t) => {
  const { options } = await setup(t, (response) =>
    stream(response, open('e:0'), { news: { from: 'tomorrow' } }, batch(1)),
  )
  for await (const message of follow(options)) {
    assert.equal(indexOf(message), 1)
    break
  }
})
