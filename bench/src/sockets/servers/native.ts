import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { SocketServer } from '../contender.ts'
import { compiled } from '../native.ts'

export const epollPerEvent = (): Promise<SocketServer> => epoll('p')
export const epollPerBurst = (): Promise<SocketServer> => epoll('b')

/** The same in C, for what Node itself costs. It makes the same events with its own clock. */
async function epoll(command: 'p' | 'b'): Promise<SocketServer> {
  const program = await compiled('server')
  const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const number = async () => Number((await lines.next()).value)
  return {
    port: await number(),
    pid: child.pid as number,
    readers() {
      child.stdin.write('c\n')
      return number()
    },
    publish: (events) => void child.stdin.write(`${command} ${events.length}\n`),
  }
}
