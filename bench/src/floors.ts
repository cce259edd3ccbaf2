import type { BenchEvent, Contender, Sink } from './contender.ts'

/** The least that could do a job: what a contender costs above it is the price of its promises. */
export const floors: readonly Contender[] = [
  {
    name: 'floor: array push',
    kind: 'floor',
    open(capacity) {
      let kept: BenchEvent[] = []
      return {
        publish(event) {
          if (kept.length === capacity) kept = []
          kept.push(event)
        },
        replay(sink) {
          for (let n = 0; n < kept.length; n++) sink.take(kept[n] as BenchEvent)
        },
        stall: () => kept,
      }
    },
  },
  {
    name: 'floor: array of callbacks',
    kind: 'floor',
    open() {
      const callbacks: ((event: BenchEvent) => void)[] = []
      return {
        publish(event) {
          for (let n = 0; n < callbacks.length; n++) (callbacks[n] as (event: BenchEvent) => void)(event)
        },
        follow(readers, sink) {
          for (let n = 0; n < readers; n++) callbacks.push((event) => sink.take(event))
        },
      }
    },
  },
  {
    name: 'floor: push and a microtask',
    kind: 'floor',
    open() {
      const callbacks: ((event: BenchEvent) => void)[] = []
      const kept: BenchEvent[] = []
      const wake = () => {
        const event = kept.pop() as BenchEvent
        for (let n = 0; n < callbacks.length; n++) (callbacks[n] as (event: BenchEvent) => void)(event)
      }
      return {
        publish(event) {
          kept.push(event)
          queueMicrotask(wake)
        },
        follow(readers, sink) {
          for (let n = 0; n < readers; n++) callbacks.push((event) => sink.take(event))
        },
      }
    },
  },
  {
    name: 'floor: shared promise',
    kind: 'floor',
    open() {
      let { promise, resolve } = newDeferred<BenchEvent>()
      async function read(sink: Sink): Promise<void> {
        while (true) sink.take(await promise)
      }
      return {
        publish(event) {
          const settle = resolve
          ;({ promise, resolve } = newDeferred<BenchEvent>())
          settle(event)
        },
        read(readers, sink) {
          for (let n = 0; n < readers; n++) void read(sink)
        },
      }
    },
  },
  {
    name: 'floor: own promise',
    kind: 'floor',
    open() {
      let waiting: ((event: BenchEvent) => void)[] = []
      return {
        publish(event) {
          const woken = waiting
          waiting = []
          for (const resolve of woken) resolve(event)
        },
        async readUntil(_signal, sink) {
          while (true) sink.take(await new Promise<BenchEvent>((resolve) => waiting.push(resolve)))
        },
      }
    },
  },
  {
    name: 'floor: abort listener',
    kind: 'floor',
    open: () => ({
      publish() {},
      readUntil: (signal) =>
        new Promise((_, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason), { once: true })
        }),
    }),
  },
  {
    name: 'floor: binary search',
    kind: 'floor',
    open(capacity) {
      const indexes = new Float64Array(capacity)
      let length = 0
      return {
        publish(event) {
          indexes[length++] = event.index
        },
        locate(index) {
          let low = 0
          let high = length
          while (low < high) {
            const middle = (low + high) >>> 1
            if ((indexes[middle] as number) < index) low = middle + 1
            else high = middle
          }
          return indexes[low] as number
        },
      }
    },
  },
  {
    name: 'walk through all',
    kind: 'floor',
    open() {
      const kept: BenchEvent[] = []
      return {
        publish: (event) => void kept.push(event),
        locate: (index) => kept.find((event) => event.index >= index)?.index ?? Number.NaN,
      }
    },
  },
  {
    name: 'floor: bytes in one block',
    kind: 'floor',
    open(capacity) {
      const slot = 1024
      const block = Buffer.allocUnsafeSlow(capacity * slot)
      const lengths = new Uint16Array(capacity)
      let written = 0
      return {
        publish(event) {
          const at = written++ % capacity
          lengths[at] = block.write(JSON.stringify(event.payload ?? event), at * slot)
        },
        replay(sink) {
          for (let n = Math.max(0, written - capacity); n < written; n++) {
            const start = (n % capacity) * slot
            sink.take(JSON.parse(block.toString('utf8', start, start + (lengths[n % capacity] as number))))
          }
        },
      }
    },
  },
]

function newDeferred<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {}
  const promise = new Promise<T>((settle) => {
    resolve = settle
  })
  return { promise, resolve }
}
