import { createServer, type ServerOptions } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type BrokerOptions, createBroker } from '../../src/core/broker.ts'
import { type HandlerOptions, toNodeHandler } from '../../src/http/node.ts'
import { type SqliteLogOptions, sqliteLog } from '../../src/log/sqlite.ts'

/** What a server process is told by its first argument, as JSON. */
export interface Serving {
  broker?: BrokerOptions
  handler?: HandlerOptions
  server?: ServerOptions
  /** History on disk. Default: in memory. */
  log?: SqliteLogOptions
  /** Default: any that is free. */
  port?: number
}

// A server in a process of its own, for faults that concern the whole process. Prints its port.
const options = JSON.parse(process.argv[2] ?? '{}') as Serving
const { broker: brokerOptions, handler, server: serverOptions = {}, port = 0 } = options
const broker = createBroker(options.log ? { ...brokerOptions, log: await sqliteLog(options.log) } : brokerOptions)
const server = createServer(serverOptions, toNodeHandler(broker, { ...handler, onError: () => {} }))
server.listen(port, '127.0.0.1', () => console.log((server.address() as AddressInfo).port))
