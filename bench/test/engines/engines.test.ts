import assert from 'node:assert/strict'
import { test } from 'node:test'
import { natsPrograms, startNats } from '@spillway/engines'
import { engineConformance } from '../../src/engines/conformance.ts'
import type { EngineContender, Site } from '../../src/engines/contender.ts'
import { bare, engineContender, ours } from '../../src/engines/contenders.ts'
import { eventText, numberOf } from '../../src/engines/event.ts'
import { appendFor, offer } from '../../src/engines/load.ts'

const nowhere: Site = { engine: 'r1', urls: [], stream: 'events' }

test('the number of an event is read from its text and from what that says', () => {
  for (const n of [1, 1_000_000]) {
    assert.equal(numberOf(eventText(n)), n)
    assert.equal(numberOf(JSON.parse(eventText(n))), n)
  }
})

test('a store that keeps and tells everything conforms', async () => {
  assert.equal(await engineConformance(keeping(), nowhere), undefined)
})

test('a store that loses, misplaces, or tells wrongly is told apart', async () => {
  const damaged: [RegExp, Partial<Damage>][] = [
    [/gave 999 of 1000/, { kept: (kept) => kept.slice(1) }],
    [/acknowledged event 1 elsewhere than at 2/, { place: (place) => place + 1 }],
    [/out of order/, { kept: (kept) => kept.reverse() }],
    [/told an event twice/, { told: (n) => (n === 50 ? 49 : n) }],
    [/told events that were waited for out of order/, { told: (n) => (n <= 2 ? 3 - n : n) }],
  ]
  for (const [expected, damage] of damaged) {
    assert.match((await engineConformance(keeping(damage), nowhere)) ?? 'it conforms', expected)
  }
})

test('publishers append one event after another until the time is over', async () => {
  const store = await keeping().open(nowhere)
  const { count, times, perSecond } = await appendFor(store, { joins: true }, 3, 1)
  assert.ok(count >= 3 && perSecond > 0)
  assert.equal(times.length, count)
})

test('what is offered is sent whether or not that before was acknowledged', async () => {
  const waiting: (() => void)[] = []
  const store = {
    append: async () => {
      await new Promise<void>((resolve) => {
        if (waiting.push(resolve) === 5) for (const acknowledge of waiting) acknowledge()
      })
      return [1]
    },
  }
  assert.equal((await offer({ ...(await keeping().open(nowhere)), ...store }, 10_000, 5)).length, 5)
})

test('Spillway and the bare client conform', { skip: natsPrograms().length === 0 }, async (t) => {
  const server = await startNats()
  t.after(() => server.remove())
  for (const [n, name] of [ours, bare].entries()) {
    const site: Site = { engine: 'r1', urls: [server.url], stream: `events${n}` }
    assert.equal(await engineConformance(engineContender('r1', name), site), undefined)
  }
})

interface Damage {
  readonly kept: (kept: [text: string, place: number][]) => [text: string, place: number][]
  readonly place: (place: number) => number
  readonly told: (number: number) => number
}

/** Keeps in memory, and does to it what a damaged store would do. */
function keeping({ kept = same, place = same, told = same }: Partial<Damage> = {}): EngineContender {
  const all: [text: string, place: number][] = []
  const followers: ((text: string) => void)[] = []
  const store = {
    append: async (texts: readonly string[]) => {
      return texts.map((text) => {
        all.push([text, place(all.length + 1)])
        for (const tell of followers) tell(eventText(told(all.length)))
        return all.length
      })
    },
    follow: async (take: (text: string) => void) => void followers.push(take),
    replay: async (take: (event: unknown, place: number) => void) => {
      for (const [text, place] of kept(all)) take(text, place)
    },
    close: async () => {},
  }
  return { name: 'kept', role: 'peer', joins: true, open: async () => store }
}

function same<T>(value: T): T {
  return value
}
