import assert from 'node:assert/strict'
import { Session } from 'node:inspector'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import type { EventBuffer } from '../../src/core/buffer.ts'

interface Coverage {
  readonly result: readonly {
    readonly url: string
    readonly functions: readonly {
      readonly functionName: string
      readonly ranges: readonly { readonly startOffset: number; readonly endOffset: number; readonly count: number }[]
    }[]
  }[]
}

// Operations are counted, not timed: V8 says how often each block of code ran. It counts blocks only in code that it
// compiled after it was asked to, so the core is imported later; and it loses counts of what it optimizes or throws away.
for (const flag of ['--no-opt', '--no-maglev', '--no-sparkplug', '--no-flush-bytecode']) setFlagsFromString(flag)
const session = new Session()
session.connect()
session.post('Profiler.enable')
session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
const { EventBuffer: Buffer } = await import('../../src/core/buffer.ts')
const { createBroker } = await import('../../src/core/broker.ts')
const { event, publish } = await import('../support/brokers.ts')
const { turn } = await import('../support/waiting.ts')

interface Entry {
  readonly index: number
}

/** What ran since the last call. */
function takeCoverage(): Coverage {
  let coverage: Coverage = { result: [] }
  session.post('Profiler.takePreciseCoverage', (error, result) => {
    if (error) throw error
    coverage = result
  })
  return coverage
}

/** How often each block of the core's code runs during `work`. */
function operations(work: () => void): Map<string, number> {
  takeCoverage()
  work()
  const counts = new Map<string, number>()
  for (const { url, functions } of takeCoverage().result) {
    if (!url.includes('/src/core/')) continue
    for (const { functionName, ranges } of functions) {
      for (const { startOffset, endOffset, count } of ranges) {
        if (count > 0) counts.set(`${url.split('/').at(-1)} ${functionName} ${startOffset}-${endOffset}`, count)
      }
    }
  }
  return counts
}

const park: Record<string, (buffer: EventBuffer<Entry>) => void> = {
  'readers without a signal': (buffer) => void buffer.read().next(),
  'readers with a signal': (buffer) => void buffer.read({ signal: new AbortController().signal }).next(),
  'items that wait': (buffer) => void buffer.tail.next(),
  followers: (buffer) => void buffer.follow(() => {}),
  'paused followers': (buffer) => buffer.follow(() => {}).pause(),
}

/** What one append costs with `count` readers parked: the first of a tick, and the next. */
async function costOfAppend(count: number, kind: (buffer: EventBuffer<Entry>) => void): Promise<Map<string, number>[]> {
  const buffer = new Buffer<Entry>({ capacity: 1000 })
  for (let index = 1; index < 100; index++) buffer.append({ index })
  await turn()
  for (let n = 0; n < count; n++) kind(buffer)
  // On a busy machine serving them takes more than one turn, and the tick goes on for as long.
  await buffer.flushed()
  await turn()
  return [100, 101].map((index) => operations(() => buffer.append({ index })))
}

test('append does the same work with no reader and with 10,000 parked readers of any kind', async () => {
  for (const [name, kind] of Object.entries(park)) {
    const alone = await costOfAppend(0, kind)
    assert.ok(
      [...(alone[0]?.keys() ?? [])].some((key) => key.startsWith('buffer.js append')),
      'append was seen',
    )
    assert.deepEqual(await costOfAppend(10_000, kind), alone, name)
  }
})

test('a publish that nobody wants does the same work with 10 and with 10,000 subscriptions', async () => {
  const cost = async (count: number): Promise<Map<string, number>> => {
    const broker = createBroker()
    for (let n = 0; n < count; n++) {
      broker
        .subscribe({ topics: { Job: [`key ${n}`] } })
        .next()
        .catch(() => {})
    }
    await publish(broker, 'nobody wants this')
    await turn()
    return operations(() => void broker.publish(event('nor this')))
  }
  assert.deepEqual(await cost(10_000), await cost(10))
})
