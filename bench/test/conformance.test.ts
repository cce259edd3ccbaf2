import assert from 'node:assert/strict'
import { test } from 'node:test'
import { conformance } from '../src/conformance.ts'
import type { BenchEvent, Contender, Sink } from '../src/contender.ts'
import { loadContender } from '../src/contenders.ts'
import { scenarios } from '../src/scenarios.ts'

test('everything of ours does what its scenarios need', async () => {
  for (const { contenders, needs } of scenarios) {
    for (const name of contenders.filter((contender) => contender.startsWith('spillway'))) {
      assert.equal(await conformance(await loadContender(name), needs), undefined, `${name}: ${needs}`)
    }
  }
})

test('a contender without history cannot replay', async () => {
  const answer = await conformance(await loadContender('EventEmitter'), 'replay')
  assert.equal(answer, 'a late reader got 0 of 100 events')
})

test('a contender that repeats an event is found out', async () => {
  assert.equal(await conformance(delivering(twice), 'follow'), 'a reader got 101 of 100 events')
})

test('a contender that changes the order is found out', async () => {
  assert.equal(await conformance(delivering(swapped), 'follow'), 'a reader got 6 as event 5')
})

test('a contender that lacks a face cannot', async () => {
  assert.equal(await conformance(delivering(twice), 'locate'), 'has no search by index')
})

type Deliver = (sink: Sink, event: BenchEvent) => void

function delivering(deliver: Deliver): Contender {
  return {
    name: 'test',
    kind: 'peer',
    open() {
      const sinks: Sink[] = []
      return {
        publish: (event) => {
          for (const sink of sinks) deliver(sink, event)
        },
        follow: (_readers, sink) => void sinks.push(sink),
      }
    },
  }
}

function twice(sink: Sink, event: BenchEvent): void {
  sink.take(event)
  if (event.index === 5) sink.take(event)
}

function swapped(sink: Sink, { index }: BenchEvent): void {
  sink.take({ index: index === 5 ? 6 : index === 6 ? 5 : index })
}
