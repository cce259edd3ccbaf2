import {
  DeliverPolicy,
  DiscardPolicy,
  JetStreamApiError,
  type JsMsg,
  jetstream,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
} from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/transport-node'
import type { EngineStore, Site } from '../contender.ts'
import { connectTo, connectToLeader, replicasOf } from './connect.ts'

// The engine's client as one would use it by hand: `publish` with ids, so that a repetition is known, and ordered consumers.

const second = 1_000_000_000
const nameInUse = 10058
/** What a consumer lets the engine send ahead, and what a page has. */
const ahead = 500
const pageLength = 256

export const consuming = (site: Site): Promise<EngineStore> => open(site, true, replayByConsume)
/** It gives each event as what its JSON says. */
export const parsing = (site: Site): Promise<EngineStore> =>
  open(site, true, replayByConsume, (message) => message.json())
export const fetching = (site: Site): Promise<EngineStore> => open(site, true, replayByFetch)
export const unread = (site: Site): Promise<EngineStore> => open(site, false, replayByFetch)

type Replay = (connection: NatsConnection, stream: string, take: (message: JsMsg) => void) => Promise<void>

let processes = 0

async function open(
  site: Site,
  hasIds: boolean,
  replay: Replay,
  eventOf: (message: JsMsg) => unknown = (message) => message.string(),
): Promise<EngineStore> {
  const { stream } = site
  await make(site)
  const connection = await connectToLeader(site)
  const js = jetstream(connection)
  const writer = `${process.pid}-${++processes}`
  let count = 0
  const store: EngineStore = {
    append: (texts) =>
      Promise.all(
        texts.map(async (text) => {
          const { seq } = await js.publish(stream, text, hasIds ? { msgID: `${writer}.${++count}` } : {})
          return seq
        }),
      ),
    replay: (take) => replay(connection, stream, (message) => take(eventOf(message), message.seq)),
    close: () => connection.close(),
  }
  if (!hasIds) return store
  return {
    ...store,
    async follow(take) {
      const { state } = await (await jetstreamManager(connection)).streams.info(stream)
      const consumer = await js.consumers.get(stream, {
        deliver_policy: DeliverPolicy.StartSequence,
        opt_start_seq: state.last_seq + 1,
      })
      await consumer.consume({ max_messages: ahead, callback: (message) => take(message.string()) })
    },
  }
}

async function replayByConsume(
  connection: NatsConnection,
  stream: string,
  take: (message: JsMsg) => void,
): Promise<void> {
  const last = await newestOf(connection, stream)
  const consumer = await jetstream(connection).consumers.get(stream, { deliver_policy: DeliverPolicy.All })
  await new Promise<void>((resolve, reject) => {
    const callback = (message: JsMsg) => {
      take(message)
      if (message.seq >= last) resolve()
    }
    consumer.consume({ max_messages: ahead, callback }).catch(reject)
  })
  await consumer.delete()
}

async function replayByFetch(
  connection: NatsConnection,
  stream: string,
  take: (message: JsMsg) => void,
): Promise<void> {
  const last = await newestOf(connection, stream)
  const consumer = await jetstream(connection).consumers.get(stream, { deliver_policy: DeliverPolicy.All })
  for (let at = 0; at < last; ) {
    const page = await consumer.fetch({ max_messages: Math.min(pageLength, last - at), expires: 5000 })
    for await (const message of page) {
      take(message)
      at = message.seq
    }
  }
  await consumer.delete()
}

async function newestOf(connection: NatsConnection, stream: string): Promise<number> {
  const { state } = await (await jetstreamManager(connection)).streams.info(stream)
  return state.last_seq
}

/** With the settings that Spillway's have. */
async function make(site: Site): Promise<void> {
  const connection = await connectTo(site.urls[0] as string)
  const manager = await jetstreamManager(connection)
  try {
    await manager.streams.add({
      name: site.stream,
      subjects: [site.stream],
      storage: StorageType.File,
      retention: RetentionPolicy.Limits,
      discard: DiscardPolicy.Old,
      num_replicas: replicasOf(site),
      max_bytes: 2 ** 30,
      duplicate_window: 600 * second,
    })
  } catch (error) {
    // Another server of the same measurement has made it.
    if (!(error instanceof JetStreamApiError && error.code === nameInUse)) throw error
  } finally {
    await connection.close()
  }
}
