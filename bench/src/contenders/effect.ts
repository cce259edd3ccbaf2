import * as Effect from 'effect/Effect'
import * as PubSub from 'effect/PubSub'
import type { BenchEvent, Contender, Sink, Stream } from '../contender.ts'

export const effect: Contender = { name: 'Effect PubSub', kind: 'peer', from: 'effect', open }

async function open(capacity: number): Promise<Stream> {
  const pubsub = await Effect.runPromise(PubSub.sliding<BenchEvent>({ capacity, replay: capacity }))

  return {
    publish(event) {
      // The fast way refuses where the sliding way has to let go of something.
      if (!PubSub.publishUnsafe(pubsub, event)) Effect.runSync(PubSub.publish(pubsub, event))
    },
    read(readers, sink) {
      for (let n = 0; n < readers; n++) Effect.runFork(reading(pubsub, sink))
    },
    readUntil: (signal, sink) => Effect.runPromise(reading(pubsub, sink), { signal }),
    replay: (sink) => void Effect.runFork(reading(pubsub, sink)),
    stall: (readers) => Array.from({ length: readers }, () => Effect.runFork(stalling(pubsub))),
  }
}

function reading(pubsub: PubSub.PubSub<BenchEvent>, sink: Sink): Effect.Effect<never> {
  return Effect.scoped(
    Effect.gen(function* () {
      const subscription = yield* PubSub.subscribe(pubsub)
      while (true) for (const event of yield* PubSub.takeAll(subscription)) sink.take(event)
    }),
  )
}

function stalling(pubsub: PubSub.PubSub<BenchEvent>): Effect.Effect<never> {
  return Effect.scoped(
    Effect.gen(function* () {
      const subscription = yield* PubSub.subscribe(pubsub)
      yield* PubSub.take(subscription)
      return yield* Effect.never
    }),
  )
}
