import { createInbox, type NatsConnection } from '@nats-io/nats-core'

/** A subject for answers, below the prefix that the connection was given: its user may be allowed no other. */
export function newInbox(connection: NatsConnection): string {
  const { options } = connection as { readonly options?: { readonly inboxPrefix?: string } }
  return createInbox(options?.inboxPrefix)
}
