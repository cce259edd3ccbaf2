import { now } from '../threads/clock.ts'
import { Sequence } from './conformance.ts'
import type { Site } from './contender.ts'
import { engineContender } from './contenders.ts'
import { numberOf } from './event.ts'
import { appendFor } from './load.ts'

// Another server of a stream, in a process of its own: `server.js <contender> <site>`. It says when it is ready and answers orders, one
// after the other.

export type Order =
  | { readonly append: { readonly publishers: number; readonly ms: number } }
  /** Follows, and then says when each of so many events has come. */
  | { readonly follow: true }
  | { readonly arrivals: number }

const patience = 60_000

const [, , name = '', place = ''] = process.argv
const site = JSON.parse(place) as Site
const contender = engineContender(site.engine, name)
const store = await contender.open(site)
const sequence = new Sequence()
const arrivals: number[] = []

process.on('message', async (order: Order) => {
  process.send?.(await carryOut(order).catch(({ message }) => ({ failed: message })))
})
process.on('disconnect', () => process.exit())
process.send?.({})

async function carryOut(order: Order): Promise<unknown> {
  if ('append' in order) {
    const { count, perSecond } = await appendFor(store, contender, order.append.publishers, order.append.ms)
    return { count, perSecond }
  }
  if ('follow' in order) {
    await store.follow?.((text) => {
      arrivals.push(now())
      sequence.take(numberOf(text))
    })
    return {}
  }
  await sequence.reaches(order.arrivals, patience)
  return { arrivals, numbers: sequence.numbers }
}
