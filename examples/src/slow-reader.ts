// A fast publisher, a reader that keeps up and one that does not: the slow one is told what it missed, and goes on.
import { setTimeout as sleep } from 'node:timers/promises'
import { createBroker } from 'spillway'

interface Topics {
  Price: { cents: number }
}

const last = 200
const broker = createBroker<Topics>({ capacity: 20 })

async function read(name: string, pause: number): Promise<void> {
  let seen = 0
  let missed = 0
  for await (const { index, events, gap } of broker.subscribe({ topics: { Price: ['*'] }, onLag: 'skip' })) {
    if (gap) missed += gap.before - gap.after - 1
    seen += events.length
    if (index === last) break
    if (pause > 0) await sleep(pause)
  }
  console.log(`${name}: ${seen} seen, ${missed} told as missed, ${seen + missed} in all`)
}

const readers = [read('fast', 0), read('slow', 5)]
for (let n = 1; n <= last; n++) {
  await broker.publish({ topic: 'Price', type: 'PriceChanged', key: 'ACME', payload: { cents: 1000 + n } })
  if (n % 10 === 0) await sleep(1)
}
await Promise.all(readers)
await broker.close()
