// What is used of packages that bring no types.
declare module 'ws' {
  import type { Server } from 'node:http'

  export class WebSocketServer {
    constructor(options: { server: Server; perMessageDeflate: boolean })
    readonly clients: ReadonlySet<{ send(bytes: Uint8Array, options: { binary: boolean }): void }>
  }
}

declare module 'express' {
  import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'

  interface Response extends ServerResponse {
    set(headers: Readonly<Record<string, string>>): this
  }
  interface Application extends RequestListener {
    get(path: string, handler: (request: IncomingMessage, response: Response) => void): void
  }
  const express: () => Application
  export = express
}
