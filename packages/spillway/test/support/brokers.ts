import type { Broker } from '../../src/core/broker.ts'
import type { Batch, EventInput } from '../../src/core/event.ts'
import type { Subscription } from '../../src/core/subscription.ts'
import { turn } from './waiting.ts'

/** An event about `key`. */
export const event = (key: string, topic = 'Job'): EventInput => ({ topic, type: 'Changed', key, payload: key })

/** Publishes one event about each key, each under an index of its own. */
export async function publish(broker: Broker, ...keys: string[]): Promise<void> {
  for (const key of keys) await broker.publish(event(key))
}

/** Takes all that a subscription has to give, until it would wait. */
export async function drain(subscription: Subscription): Promise<Batch[]> {
  const got: Batch[] = []
  // It may be reading the log, where many pages may hold nothing for it.
  for (let idle = 0; idle < 10; idle++) {
    for (let batch = subscription.take(); batch; batch = subscription.take()) {
      got.push(batch)
      idle = 0
    }
    await turn()
  }
  return got
}

/** The keys of a batch's events; its gap, if it is one. */
export const shape = ({ gap, events }: Batch): unknown => gap ?? events.map(({ key }) => key)

/** What a subscription has to give, as the keys of each batch or the gap. */
export async function shapes(subscription: Subscription): Promise<unknown[]> {
  return (await drain(subscription)).map(shape)
}
