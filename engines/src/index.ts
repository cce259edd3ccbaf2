export { freePort } from './free-port.ts'
export { type NatsServer, type NatsServerOptions, natsPrograms, startNats } from './nats.ts'
export { type PostgresServer, postgresProgram, startPostgres } from './postgres.ts'
export type { EngineProcess } from './process.ts'
