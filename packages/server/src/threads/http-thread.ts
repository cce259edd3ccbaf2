import { parentPort, workerData } from 'node:worker_threads'
import { type Broker, createBroker } from 'spillway'
import type { HandlerState } from 'spillway/node'
import { openSharedLog } from 'spillway/shared'
import { Listeners } from '../auth/listeners.ts'
import type { LogFields, ServerLog } from '../log.ts'
import { createSite } from '../site.ts'
import type { Certificate, CertificatePair } from '../tls.ts'
import {
  type ConnectionCells,
  connect,
  type MainCalls,
  type NextLog,
  type ThreadCalls,
  type ThreadData,
} from './calls.ts'

// A thread that serves HTTP. It owns nothing: history, rights, places and tickets are the main thread's.
if (!parentPort) throw new Error('This is a thread of `spillway serve --threads`.')
const data = workerData as ThreadData
const replaced = new Listeners<CertificatePair>()
let broker = brokerOf(data)

const local: ThreadCalls = {
  listen: async (options) => (await site.listen(options)).port,
  subscriptions: () => broker.status.subscriptions,
  replaceCertificate: (pair) => replaced.tell(pair),
  close: (grace) => site.close(grace),
}
const main = connect<MainCalls, ThreadCalls>(parentPort, local)

const site = createSite(
  {
    broker,
    rightsOf: data.hasAuth ? (token) => main.rightsOf(token) : undefined,
    certificate: data.certificate && certificateOf(data.certificate),
    state: state(),
    admit: () => admit(data.connections),
    counted: {
      denied: (denial) => void main.denied(denial),
      failed: () => void main.failed(),
      badRequest: () => void main.badRequest(),
    },
    metrics: () => main.metrics(),
    problem: () => main.problem(),
    log: remoteLog(),
  },
  data.site,
)

data.logs.on('message', (next: NextLog) => {
  broker = brokerOf(next)
  site.serve({ broker, shared: undefined })
})

function brokerOf({ log, port }: NextLog): Broker {
  return createBroker({
    ...data.buffer,
    log: openSharedLog(log, port),
    authorize: data.hasAuth ? ({ token }) => main.rightsOf(token) : undefined,
  })
}

function state(): HandlerState {
  return {
    async takePlace(address) {
      const place = await main.takePlace(address)
      return { for: (subject) => main.namePlace(place, subject), free: () => void main.freePlace(place) }
    },
    takeEvents: (publisher, events) => main.takeEvents(publisher, events),
    issueTicket: (token) => main.issueTicket(token),
    redeemTicket: (ticket) => main.redeemTicket(ticket),
    counts: () => main.counts(),
  }
}

function certificateOf(first: CertificatePair): Pick<Certificate, 'current' | 'onChange'> {
  return { current: first, onChange: (listener) => replaced.add(listener) }
}

function admit({ cells, own, most }: ConnectionCells): (() => void) | undefined {
  Atomics.add(cells, own, 1)
  const left = () => void Atomics.sub(cells, own, 1)
  let open = 0
  for (let at = 0; at < cells.length; at++) open += Atomics.load(cells, at)
  if (open <= most) return left
  left()
  return undefined
}

function remoteLog(): ServerLog {
  const tell =
    (level: 'info' | 'warn' | 'error') =>
    (message: string, fields: LogFields = {}) =>
      void main.tell(level, message, 'error' in fields ? { ...fields, error: cloneable(fields.error) } : fields)
  return { info: tell('info'), warn: tell('warn'), error: tell('error') }
}

/** An error as structured cloning takes it, whatever hangs on it. */
function cloneable(error: unknown): Error {
  if (!(error instanceof Error)) return new Error(String(error))
  const { message, stack, cause } = error
  const copy = new Error(message, cause === undefined ? undefined : { cause: cloneable(cause) })
  copy.stack = stack ?? message
  return copy
}
