import { EventEmitter, on } from 'node:events'
import type { BenchEvent, Contender, Sink, Stream } from '../contender.ts'

export const eventEmitter: Contender = { name: 'EventEmitter', kind: 'peer', open: openEmitter }
export const eventsOn: Contender = { name: 'events.on', kind: 'peer', open: openOn }

function newEmitter(): EventEmitter {
  return new EventEmitter().setMaxListeners(0)
}

function openEmitter(): Stream {
  const emitter = newEmitter()
  return {
    publish: (event) => void emitter.emit('event', event),
    follow(readers, sink) {
      for (let n = 0; n < readers; n++) emitter.on('event', (event: BenchEvent) => sink.take(event))
    },
    replay: (sink) => void emitter.on('event', (event: BenchEvent) => sink.take(event)),
    match(readers, sink) {
      for (let key = 0; key < readers; key++) {
        emitter.on('event', (event: BenchEvent) => {
          if (event.payload === key) sink.take(event)
        })
      }
      let index = 0
      return (key) => void emitter.emit('event', { index: ++index, payload: key })
    },
  }
}

function openOn(): Stream {
  const emitter = newEmitter()

  async function read(sink: Sink, options: { signal?: AbortSignal } = {}): Promise<void> {
    for await (const [event] of on(emitter, 'event', options)) sink.take(event)
  }

  return {
    publish: (event) => void emitter.emit('event', event),
    read(readers, sink) {
      for (let n = 0; n < readers; n++) void read(sink)
    },
    readUntil: (signal, sink) => read(sink, { signal }),
    replay: (sink) => void read(sink),
    stall: (readers) =>
      Array.from({ length: readers }, () => {
        const reader = on(emitter, 'event')
        void reader.next()
        return reader
      }),
  }
}
