import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import type { SocketServer } from '../contender.ts'
import { listen } from './listen.ts'

/** Servers of Debian, with a publisher of their own kind beside them. Their clients are the readers. */
export async function nats(): Promise<SocketServer> {
  const port = await freePort()
  const child = spawn('nats-server', ['-a', '127.0.0.1', '-p', `${port}`], { stdio: 'ignore' })
  const publisher = await reach(port, child)
  publisher.write('CONNECT {"verbose":false}\r\n')
  return {
    port,
    pid: child.pid as number,
    // It has no cheap way to say so, and answers PING only when SUB was done.
    readers: () => Number.POSITIVE_INFINITY,
    publish: (events) => void publisher.write(events.map((text) => `PUB bench ${text.length}\r\n${text}\r\n`).join('')),
  }
}

export async function redis(): Promise<SocketServer> {
  const port = await freePort()
  const options = [
    '--bind',
    '127.0.0.1',
    '--port',
    `${port}`,
    '--save',
    '',
    '--appendonly',
    'no',
    '--maxclients',
    '15000',
  ]
  const child = spawn('redis-server', options, { stdio: 'ignore', cwd: '/tmp' })
  const publisher = await reach(port, child)
  return {
    port,
    pid: child.pid as number,
    readers: () => Number.POSITIVE_INFINITY,
    publish: (events) =>
      void publisher.write(
        events.map((text) => `*3\r\n$7\r\nPUBLISH\r\n$5\r\nbench\r\n$${text.length}\r\n${text}\r\n`).join(''),
      ),
  }
}

async function freePort(): Promise<number> {
  const probe = createServer()
  const port = await listen(probe)
  probe.close()
  await once(probe, 'close')
  return port
}

/** Connects as soon as the server listens. */
async function reach(port: number, child: ChildProcess): Promise<Socket> {
  const deadline = performance.now() + 5000
  while (performance.now() < deadline && child.exitCode === null) {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    try {
      await once(socket, 'connect')
      return socket.on('error', () => {}).resume()
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  throw new Error('the server did not start')
}
