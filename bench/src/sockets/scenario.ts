import type { PartScenario } from '../part.ts'
import type { Measured } from '../scenario.ts'
import type { SocketContender } from './contender.ts'

export interface SocketScenario extends PartScenario {
  /** Rejects with `Cannot` if the contender does not stand it. */
  measure(contender: SocketContender, quick: boolean): Promise<Measured>
}

export const ours = 'spillway'
export const inThread = 'spillway, HTTP in a thread'
export const perEvent = 'floor: net, a write per event'
export const perBurst = 'floor: net, a write per burst'
export const nodeHttp = 'node:http res.write'

/** Ways from `publish` to the sockets of a bare node:http server. Sizes are high-water marks, where not Node's own. */
export const pathNames = [
  'response.write(string)',
  'response.write(Buffer)',
  'response.cork + write(Buffer)',
  'response.write(Buffer) per tick',
  'socket.write per event',
  'socket.cork + write per event',
  'socket.write per tick (16 KiB)',
  'socket.write per tick (64 KiB)',
  'socket.write per tick (1 MiB)',
  'socket.write(string) per tick',
  'socket.cork + frame apart',
  'socket._writev + frame apart',
] as const

/** One of the ways. */
export type PathName = (typeof pathNames)[number]

/** The way that Spillway takes. */
export const ourPath: PathName = 'socket.write per tick (16 KiB)'
