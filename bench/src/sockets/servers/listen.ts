import type { AddressInfo, Server } from 'node:net'

/** Listens on a port that the system chooses, for this machine only. */
export async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', 511, resolve)
  })
  return (server.address() as AddressInfo).port
}
