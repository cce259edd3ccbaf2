import type { ThreadContender } from './contender.ts'
import type { Way } from './contenders/lanes.ts'

export const ours = 'spillway, per 64'
export const oursEach = 'spillway, per record'
export const inLoop = 'spillway, per 64, event loop'
export const eachInLoop = 'spillway, per record, event loop'
export const face = 'spillway, publish to nextSync'
export const faceInLoop = 'spillway, publish to next'
export const objects = 'postMessage(event)'
export const message = 'postMessage(string)'
export const channel = 'BroadcastChannel'
export const twin = 'floor: C11, per 64'
export const twinEach = 'floor: C11, per record'

const here = (name: string, role: ThreadContender['role'], way: Way): ThreadContender => ({
  name,
  role,
  loses: way.kind === 'ring' || way.kind === 'face',
  stream: async (stream) => (await import('./contenders/threads.ts')).streamTo(way, stream),
  wake: async (count, size) => (await import('./contenders/threads.ts')).wakeBy(way, count, size),
})

const inC = (name: string, each: boolean): ThreadContender => ({
  name,
  role: 'floor',
  loses: true,
  missing: async () => (await import('../sockets/native.ts')).noCompiler(),
  stream: async (stream) => (await import('./contenders/twin.ts')).streamInC(each, stream),
  wake: async (count, size) => (await import('./contenders/twin.ts')).wakeInC(count, size),
})

export const threadContenders: readonly ThreadContender[] = [
  here(ours, 'ours', { kind: 'ring', each: false, waits: 'blocking' }),
  here(oursEach, 'ours', { kind: 'ring', each: true, waits: 'blocking' }),
  here(inLoop, 'ours', { kind: 'ring', each: false, waits: 'loop' }),
  here(eachInLoop, 'ours', { kind: 'ring', each: true, waits: 'loop' }),
  here(face, 'ours', { kind: 'face', waits: 'blocking' }),
  here(faceInLoop, 'ours', { kind: 'face', waits: 'loop' }),
  here(message, 'peer', { kind: 'strings' }),
  here(objects, 'peer', { kind: 'objects' }),
  here(channel, 'peer', { kind: 'channel' }),
  inC(twin, false),
  inC(twinEach, true),
]

export function threadContender(name: string): ThreadContender {
  const found = threadContenders.find((contender) => contender.name === name)
  if (!found) throw new Error(`There is no contender "${name}".`)
  return found
}
