plugins {
    alias(libs.plugins.android)
    alias(libs.plugins.kotlin)
}

// Empty: CMake says what is missing.
val executorch = providers.gradleProperty("executorch").getOrElse("")

// What `gradle --project-dir ../qnn/android unpack` fetched; the versions stand there.
val phone = rootDir.resolve("../qnn/android/build/phone")

android {
    namespace = "org.dqtoolchain.draw"
    compileSdk = libs.versions.sdk.get().toInt()
    ndkVersion = libs.versions.ndk.get()

    defaultConfig {
        applicationId = "org.dqtoolchain.draw"
        minSdk = libs.versions.oldest.get().toInt()
        targetSdk = libs.versions.sdk.get().toInt()
        versionCode = 1
        versionName = "1"
        ndk { abiFilters += "arm64-v8a" }
        externalNativeBuild {
            cmake {
                targets += "dq_draw"
                // Release also in a debug build of the app: without optimization a picture takes hours.
                arguments += listOf("-DANDROID_STL=c++_static", "-DCMAKE_BUILD_TYPE=Release")
            }
        }
    }

    flavorDimensions += "runtime"
    productFlavors {
        create("executorch") {
            dimension = "runtime"
            externalNativeBuild { cmake { arguments += listOf("-DDQ_RUNTIME=executorch", "-DDQ_EXECUTORCH=$executorch") } }
        }
        create("qnn") {
            dimension = "runtime"
            minSdk = libs.versions.oldestOfQnn.get().toInt()
            externalNativeBuild { cmake { arguments += listOf("-DDQ_RUNTIME=qnn", "-DDQ_ONNXRUNTIME=$phone") } }
        }
    }

    sourceSets.getByName("qnn").jniLibs.srcDir(phone.resolve("jni"))

    packaging {
        jniLibs {
            useLegacyPackaging = true // the DSP opens its library as a file, so they must be files on the phone
            pickFirsts += "**/libonnxruntime.so" // CMake links the file that jniLibs has
            excludes += "**/libQnnHtpPrepare.so" // compiles graphs, which contexts are already
        }
    }

    externalNativeBuild {
        cmake {
            path = file("src/main/cpp/CMakeLists.txt")
            version = libs.versions.cmake.get()
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    kotlinOptions { jvmTarget = "17" }
}

dependencies { implementation(libs.core) }
