import { getEventListeners } from 'node:events'
import { Gate, settled } from '../gate.ts'
import type { Scenario } from '../scenario.ts'
import { median } from '../stats.ts'

const readers = 10_000
const reason = new Error('cancelled')

export const cancel: readonly Scenario[] = [
  {
    id: 'cancel-one',
    title: 'Cancel one of 10,000 readers, with its AbortController',
    unit: 'us',
    needs: 'readUntil',
    contenders: ['spillway', 'spillway broker', 'events.on', 'Effect PubSub', 'floor: abort listener'],
    async measure(open, ms) {
      const stream = await open(1000)
      const gate = new Gate()
      const start = () => {
        const controller = new AbortController()
        const ended = stream.readUntil?.(controller.signal, gate).catch(() => {})
        return { controller, ended }
      }
      const waiting = Array.from({ length: readers }, start)
      await settled()
      const times: number[] = []
      let listenersLeft = 0
      const begun = performance.now()
      const end = begun + ms * 1.5
      for (let n = 0; performance.now() < end || times.length < 200; n++) {
        const at = Math.floor(Math.random() * readers)
        const { controller, ended } = waiting[at] as ReturnType<typeof start>
        const before = process.hrtime.bigint()
        controller.abort(reason)
        const after = process.hrtime.bigint()
        await ended
        listenersLeft += getEventListeners(controller.signal, 'abort').length
        times.push(Number(after - before))
        waiting[at] = start()
        // A reader that has to start in a later turn would be cancelled before it waits.
        if (n % 32 === 0) await settled(2)
      }
      const kept = times.slice(Math.floor(times.length / 3))
      return { value: median(kept) / 1e3, extra: { samples: kept.length, listenersLeft } }
    },
  },
]
