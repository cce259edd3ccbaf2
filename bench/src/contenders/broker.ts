import { type Broker, createBroker, type SubscribeOptions } from 'spillway'
import type { Contender, Sink, Stream } from '../contender.ts'

/** The whole of the library in one process: checked events, payloads as JSON text, filters, subscriptions. */
export const broker: Contender = {
  name: 'spillway broker',
  kind: 'ours',
  open: (capacity) => open(capacity, (key) => ({ topics: { order: [`${key}`] } })),
}

/** The same, if each subscription looked at every event. */
export const brokerFilterInEach: Contender = {
  name: 'spillway broker, filter in each',
  kind: 'ours',
  open(capacity) {
    return open(capacity, (key) => {
      const wanted = `${key}`
      return { filter: (event) => event.key === wanted }
    })
  },
}

function open(capacity: number, wanting: (key: number) => SubscribeOptions): Stream {
  const broker = createBroker({ capacity, maxBytes: 2 ** 30 })

  return {
    publish: (event) => void broker.publish({ topic: 'order', type: 'placed', payload: event.payload ?? event }),
    read(readers, sink) {
      for (let n = 0; n < readers; n++) void read(broker, {}, sink)
    },
    readUntil: (signal, sink) => read(broker, { signal }, sink),
    replay: (sink) => void read(broker, { from: 'earliest' }, sink),
    stall: (readers) =>
      Array.from({ length: readers }, () => {
        const subscription = broker.subscribe()
        void subscription.next()
        return subscription
      }),
    match(readers, sink) {
      for (let key = 0; key < readers; key++) void read(broker, wanting(key), sink)
      return (key) => void broker.publish({ topic: 'order', type: 'placed', key: `${key}` })
    },
  }
}

async function read(broker: Broker, options: SubscribeOptions, sink: Sink): Promise<void> {
  // A batch stands for its one event: it carries the index.
  for await (const batch of broker.subscribe(options)) {
    sink.take(batch)
    if (sink.left === 0 && options.from) break
  }
}
