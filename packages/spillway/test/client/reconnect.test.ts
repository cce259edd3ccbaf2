import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Connection } from '../../src/client/connection.ts'
import { Refusal } from '../../src/client/connection.ts'
import { createClient } from '../../src/client/index.ts'
import type { Message } from '../../src/client/parse.ts'
import { SilenceLimit } from '../../src/client/silence.ts'
import { RemoteSubscription, type Status } from '../../src/client/subscription.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import { until } from '../support/http.ts'
import { seededRandom } from '../support/random.ts'
import { withCode } from '../support/waiting.ts'

const open: Message = { kind: 'position', cursor: 'e-1:7', at: { epoch: 'e-1', index: 7 }, newest: 7 }
const unreachable = () => new SpillwayError('UNREACHABLE', 'gone')

/** Connections that say each of `words` in turn, and fail with the error that they come to. */
function connection(words: readonly (Message | Error)[]): Connection {
  const left = [...words]
  return {
    async read() {
      const next = left.shift() ?? unreachable()
      if (next instanceof Error) throw next
      return [next]
    },
    opened() {},
    close() {},
  }
}

/** How long a subscription waits after each of `attempts`: what a connection says, or the error that it fails with. */
async function waits(attempts: readonly ((Message | Error)[] | Error)[], random: () => number): Promise<number[]> {
  const found: number[] = []
  const left = [...attempts]
  await new Promise<void>((resolve) => {
    const subscription: RemoteSubscription = new RemoteSubscription(
      {
        async connect() {
          const next = left.shift() ?? []
          if (next instanceof Error) throw next
          return connection(next)
        },
        hasFreshCredentials: false,
        onLag: 'skip',
        onStatus: (status: Status) => {
          if (status.state === 'closed') resolve()
          if (status.state !== 'waiting') return
          found.push(status.ms)
          // The wait itself is not waited for.
          queueMicrotask(() => subscription.wake())
          if (found.length === attempts.length) queueMicrotask(() => subscription.close())
        },
        firstWait: 3000,
        longestWait: 30_000,
        random,
      },
      undefined,
      undefined,
    )
    const ask = (): Promise<void> => subscription.next().then(ask, () => {})
    void ask()
  })
  return found
}

for (const [what, ending] of [
  ['vanishes', unreachable()],
  ['says that it goes', new Refusal(new SpillwayError('SHUTDOWN', 'bye'), 1000)],
  ['is overloaded', new Refusal(new SpillwayError('OVERLOADED', 'full'), 2000)],
] as const) {
  test(`10,000 clients whose server ${what} come back so that no 100 ms have more than 5 % of them`, async () => {
    const random = seededRandom(`reconnects, ${what}`)
    const windows = new Map<number, number>()
    for (let n = 0; n < 10_000; n++) {
      const [wait = 0] = await waits([[open, ending]], () => random.below(2 ** 32) / 2 ** 32)
      // In the worst case of how the windows lie: each counts with the one before it, half of each.
      const window = Math.floor(wait / 50)
      windows.set(window, (windows.get(window) ?? 0) + 1)
    }
    for (const [window, count] of windows) {
      const both = count + (windows.get(window + 1) ?? 0)
      assert.ok(both <= 500, `${both} of 10,000 between ${window * 50} and ${window * 50 + 100} ms`)
    }
  })
}

test('a server that stays away is asked less and less often, 30 seconds apart at most', async () => {
  const attempts = Array.from({ length: 8 }, unreachable)
  assert.deepEqual(await waits(attempts, () => 1), [3000, 6000, 12_000, 24_000, 30_000, 30_000, 30_000, 30_000])
})

test('a stream that was renewed is taken up at once, unless it had brought nothing', async () => {
  const batch = { index: 8, cursor: 'e-1:8', events: [{}] } as never
  const news: Message = { kind: 'batch', cursor: 'e-1:8', at: { epoch: 'e-1', index: 8 }, batch }
  const renew = new Refusal(new SpillwayError('RENEW', 'old'), 0)
  assert.deepEqual(await waits([[open, renew]], () => 0.5), [1500])
  assert.deepEqual(await waits([[open, news, renew]], () => 0.5), [0])
})

test('what the server asks for is waited for, up to an hour', async () => {
  const refusal = new Refusal(new SpillwayError('OVERLOADED', 'full'), 2 ** 31)
  assert.deepEqual(await waits([refusal], () => 0), [3_600_000])
})

test('credentials that never come are given up, by publish in its own time', async () => {
  const client = createClient({ url: 'http://127.0.0.1:1', headers: () => new Promise(() => {}), publishTimeout: 50 })
  await assert.rejects(client.publish({ topic: 'T', type: 't' }), { code: 'UNREACHABLE' })
  const controller = new AbortController()
  const publishing = client.publish({ topic: 'T', type: 't' }, { signal: controller.signal })
  controller.abort(new Error('enough'))
  await assert.rejects(publishing, /enough/)
  const subscription = client.subscribe()
  subscription.close()
  await assert.rejects(subscription.ready, { code: 'CLOSED' })
})

test('what the server asks for is waited for at least', async () => {
  const refusal = new Refusal(new SpillwayError('OVERLOADED', 'full'), 5000)
  assert.deepEqual(await waits([refusal], () => 0), [5000])
  assert.deepEqual(await waits([refusal], () => 1), [8000])
})

test('a return of the network does not shorten what the server asked for', async () => {
  const states: string[] = []
  const subscription = new RemoteSubscription(
    {
      connect: () => Promise.reject(new Refusal(new SpillwayError('OVERLOADED', 'full'), 1_000_000)),
      hasFreshCredentials: false,
      onLag: 'skip',
      onStatus: ({ state }) => states.push(state),
      firstWait: 1,
      longestWait: 30_000,
      random: () => 0,
    },
    undefined,
    undefined,
  )
  await until(() => states.includes('waiting'), 'it waits')
  subscription.wake()
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(states, ['connecting', 'waiting'])
  subscription.close()
})

test('a server that never comes to its first message is given up, whatever else it sends', async () => {
  const limit = new SilenceLimit(60)
  const soon = () => new Promise<void>((resolve) => setTimeout(resolve, 5))
  const trickle = async () => {
    for (;;) await limit.during(soon)
  }
  await assert.rejects(trickle(), withCode('UNREACHABLE', /No message came for 60 ms/))
  const opened = new SilenceLimit(60)
  opened.relax(10_000)
  for (let n = 0; n < 15; n++) await opened.during(soon)
})

test('a url with a password is refused, and not repeated', () => {
  for (const url of ['http://ann:pw@127.0.0.1', 'https://ann@host/base']) {
    assert.throws(
      () => createClient({ url }),
      (error: SpillwayError) => {
        assert.equal(error.code, 'CONFIG')
        assert.doesNotMatch(error.message, /ann|pw/)
        return true
      },
    )
  }
})
