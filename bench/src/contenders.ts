import type { Contender } from './contender.ts'
import { floors } from './floors.ts'

// Loaded when wanted: a process measures one contender and should hold no other.
const modules: Readonly<Record<string, () => Promise<Contender>>> = {
  spillway: async () => (await import('./contenders/spillway.ts')).spillway,
  'spillway broker': async () => (await import('./contenders/broker.ts')).broker,
  'spillway broker, filter in each': async () => (await import('./contenders/broker.ts')).brokerFilterInEach,
  EventEmitter: async () => (await import('./contenders/events.ts')).eventEmitter,
  'events.on': async () => (await import('./contenders/events.ts')).eventsOn,
  'RxJS ReplaySubject': async () => (await import('./contenders/rxjs.ts')).replaySubject,
  'RxJS Subject': async () => (await import('./contenders/rxjs.ts')).subject,
  'Effect PubSub': async () => (await import('./contenders/effect.ts')).effect,
}

const floorsByName: Readonly<Record<string, Contender>> = Object.fromEntries(floors.map((floor) => [floor.name, floor]))

export async function loadContender(name: string): Promise<Contender> {
  const found = floorsByName[name] ?? (await modules[name]?.())
  if (!found) throw new Error(`There is no contender "${name}".`)
  return found
}
