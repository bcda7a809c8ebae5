//! The orchestrator node: channel actors, gateway, API and signer behind one gRPC port.
