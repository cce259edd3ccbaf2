export { type LogLimits, type LogSuiteOptions, logSuite, type OpenLog } from './log-suite.ts'
