export {
  type AccessRequest,
  type AnyBroker,
  type Broker,
  type BrokerOptions,
  type BrokerStatus,
  createBroker,
  type From,
  nomadRightsEvents,
  type PublishOptions,
  type RightsEvents,
  type SubscribeOptions,
} from './core/broker.ts'
export { EventBuffer, type EventBufferOptions, type Position } from './core/buffer.ts'
export { type Clock, systemClock } from './core/clock.ts'
export { type Cursor, formatCursor, parseCursor } from './core/cursor.ts'
export { type ErrorCode, type ErrorInfo, errorTable, type PlainSpillwayError, SpillwayError } from './core/errors.ts'
export {
  type Batch,
  type BatchInput,
  type EventInput,
  type EventOf,
  type Gap,
  type InputOf,
  JsonText,
  type PendingBatch,
  StoredBatch,
  StoredEvent,
  type StreamEvent,
  type TopicMap,
} from './core/event.ts'
export type { FilterOptions } from './core/filter.ts'
export type { BufferItem } from './core/item.ts'
export {
  type Appended,
  type AppendOptions,
  type HistoryBatch,
  keyWindow,
  type Log,
  type LogNews,
  type LogPage,
  type LogStart,
  type RightsChange,
} from './core/log.ts'
export { type MemoryLogOptions, memoryLog } from './core/memory-log.ts'
export type { BufferReader, Delivery, Follower } from './core/reader.ts'
export { everything, Permit, type Rights, type Rule, type Rules } from './core/rights.ts'
export type { Signal } from './core/signal.ts'
export type { Subscription } from './core/subscription.ts'
export type { TopicFilter } from './core/topics.ts'
export { formatHistoryLine, parseHistoryLine } from './wire/history.ts'
