import { createServer, type ServerOptions } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type BrokerOptions, createBroker } from '../../src/core/broker.ts'
import { type HandlerOptions, toNodeHandler } from '../../src/http/node.ts'

/** What a server process is told by its first argument, as JSON. */
export interface Serving {
  broker?: BrokerOptions
  handler?: HandlerOptions
  server?: ServerOptions
}

// A server in a process of its own, for faults that concern the whole process. Prints its port.
const { broker: brokerOptions, handler, server: serverOptions = {} } = JSON.parse(process.argv[2] ?? '{}') as Serving
const broker = createBroker(brokerOptions)
const server = createServer(serverOptions, toNodeHandler(broker, { ...handler, onError: () => {} }))
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port))
